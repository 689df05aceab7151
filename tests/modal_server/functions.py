"""Functions: what is deployed, and with which options."""

import dataclasses
import hashlib
import re
from collections.abc import Callable

from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

from modal_server.apps import Apps
from modal_server.rpc import fresh, missing

GPUS = "T4 L4 A10 L40S A100 A100-40GB A100-80GB RTX-PRO-6000 H100 H100! H200 B200 B200+".split()


@dataclasses.dataclass
class Function:
    """A function, or one of its variants with other options."""

    id: str
    app_id: str
    name: str
    definition: pb.Function
    metadata: pb.FunctionHandleMetadata
    gpus: list[str] = dataclasses.field(default_factory=list)
    """Such as H100:8, in order of preference; empty without a GPU."""

    data: pb.FunctionData = dataclasses.field(default_factory=pb.FunctionData)


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a deployed function, for tests to look at."""

    gpu: str
    """Such as H100:8, several joined by commas; empty without a GPU."""

    cpu: float
    """Cores."""

    memory: int
    """MiB."""

    timeout: int
    """Seconds."""

    region: tuple[str, ...]
    min_containers: int
    max_containers: int
    scaledown_window: int
    """Seconds."""

    snapshot: bool
    max_inputs: int
    target_inputs: int
    volumes: dict[str, tuple[str, str, bool]]
    """Volume id, sub_path and whether it is read-only, by mount path."""

    image: str
    url: str
    """Of a web function, or of the only web method of a class; else empty."""


class Functions:
    """All functions and their variants."""

    def __init__(self, apps: Apps, notice: Callable[[str], None]) -> None:
        """Belong to ``apps``; say in ``notice`` what is deployed."""
        self._apps, self._notice = apps, notice
        self.functions: dict[str, Function] = {}
        self._classes: dict[str, str] = {}

    def get(self, function_id: str) -> Function:
        """Return a function by its id; a gRPC error if there is none."""
        if function_id not in self.functions:
            raise missing(f"Function {function_id}")
        return self.functions[function_id]

    def options(self, function_id: str) -> Options:
        """Return the options of a function."""
        function = self.get(function_id)
        made, scaling = function.definition, function.definition.autoscaler_settings
        urls = [part.web_url for part in function.metadata.method_handle_metadata.values()]
        return Options(
            gpu=",".join(function.gpus),
            cpu=made.resources.milli_cpu / 1000,
            memory=made.resources.memory_mb,
            timeout=made.timeout_secs,
            region=tuple(made.scheduler_placement.regions),
            min_containers=scaling.min_containers,
            max_containers=scaling.max_containers,
            scaledown_window=scaling.scaledown_window,
            snapshot=made.checkpointing_enabled,
            max_inputs=made.max_concurrent_inputs,
            target_inputs=made.target_concurrent_inputs,
            volumes={
                mount.mount_path: (mount.volume_id, mount.sub_path, mount.read_only)
                for mount in made.volume_mounts
            },
            image=made.image_id,
            url=function.metadata.web_url or next((url for url in urls if url), ""),
        )

    async def FunctionPrecreate(
        self, request: pb.FunctionPrecreateRequest
    ) -> pb.FunctionPrecreateResponse:
        app = self._apps.app(request.app_id)
        function_id = request.existing_function_id or fresh("fu")
        metadata = pb.FunctionHandleMetadata(
            function_name=request.function_name,
            function_type=request.function_type,
            definition_id=fresh("de"),
            app_id=app.id,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
        )
        if request.webhook_config.type:
            metadata.web_url = _url(app.name, request.function_name, request.webhook_config)
        for name, method in request.method_definitions.items():
            part = metadata.method_handle_metadata[name]
            part.function_name = method.function_name
            part.function_type = method.function_type
            part.supported_input_formats.extend(method.supported_input_formats)
            part.supported_output_formats.extend(method.supported_output_formats)
            if method.webhook_config.type:
                part.web_url = _url(app.name, method.function_name, method.webhook_config)
        function = Function(function_id, app.id, request.function_name, pb.Function(), metadata)
        self.functions.setdefault(function_id, function).metadata = metadata
        return pb.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)

    async def FunctionCreate(self, request: pb.FunctionCreateRequest) -> pb.FunctionCreateResponse:
        function = self.get(request.existing_function_id)
        data = request.function_data
        if not data.ranked_functions:
            data = pb.FunctionData(
                module_name=request.function.module_name,
                function_name=request.function.function_name,
                function_type=request.function.function_type,
                is_class=request.function.is_class,
                ranked_functions=[pb.FunctionData.RankedFunction(function=request.function)],
            )
        ranked = [ranked.function for ranked in data.ranked_functions]
        gpus = [gpu for made in ranked if (gpu := _gpu(made.resources))]
        # A new object: calls that run keep what they were started with.
        function = dataclasses.replace(function, definition=ranked[0], gpus=gpus, data=data)
        function.metadata.class_parameter_info.CopyFrom(ranked[0].class_parameter_info)
        self.functions[function.id] = function
        return pb.FunctionCreateResponse(
            function_id=function.id, handle_metadata=function.metadata, function_data=data
        )

    async def FunctionGet(self, request: pb.FunctionGetRequest) -> pb.FunctionGetResponse:
        app = self._apps.deployed(request.app_name)
        if app is None:
            raise missing(f"App '{request.app_name}'")
        if request.object_tag not in app.functions:
            raise missing(f"Function '{request.object_tag}' of App '{app.name}'")
        function = self.get(app.functions[request.object_tag])
        return pb.FunctionGetResponse(
            function_id=function.id, handle_metadata=function.metadata, function=function.data
        )

    async def FunctionGetById(
        self, request: pb.FunctionGetByIdRequest
    ) -> pb.FunctionGetByIdResponse:
        function = self.get(request.function_id)
        return pb.FunctionGetByIdResponse(function=function.data, handle_metadata=function.metadata)

    async def FunctionBindParams(
        self, request: pb.FunctionBindParamsRequest
    ) -> pb.FunctionBindParamsResponse:
        base, options = self.get(request.function_id), request.function_options
        made = pb.Function()
        made.CopyFrom(base.definition)
        made.resources.MergeFrom(options.resources)
        if options.replace_volume_mounts:
            del made.volume_mounts[:]
            made.volume_mounts.extend(options.volume_mounts)
        if options.replace_secret_ids:
            made.secret_ids[:] = options.secret_ids
        if options.HasField("retry_policy"):
            made.retry_policy.CopyFrom(options.retry_policy)
        if options.HasField("timeout_secs"):
            made.timeout_secs = options.timeout_secs
        if options.HasField("scheduler_placement"):
            made.scheduler_placement.CopyFrom(options.scheduler_placement)
        gpu = _gpu(made.resources)
        # The same options give the same variant.
        digest = hashlib.sha256(request.SerializeToString(True)).hexdigest()[:22]
        metadata = pb.FunctionHandleMetadata()
        metadata.CopyFrom(base.metadata)
        metadata.base_function_id = base.id
        bound = Function(f"fu-{digest}", base.app_id, base.name, made, metadata)
        bound.gpus = [gpu] if options.resources.gpu_config.count else base.gpus
        bound.data = base.data
        self.functions[bound.id] = bound
        return pb.FunctionBindParamsResponse(bound_function_id=bound.id, handle_metadata=metadata)

    async def ClassCreate(self, request: pb.ClassCreateRequest) -> pb.ClassCreateResponse:
        class_id = request.existing_class_id or fresh("cs")
        self._classes[class_id] = request.app_id
        return pb.ClassCreateResponse(class_id=class_id, handle_metadata=pb.ClassHandleMetadata())

    async def ClassGet(self, request: pb.ClassGetRequest) -> pb.ClassGetResponse:
        app = self._apps.deployed(request.app_name)
        if app is None or request.object_tag not in app.classes:
            raise missing(f"Cls '{request.object_tag}' of App '{request.app_name}'")
        return pb.ClassGetResponse(
            class_id=app.classes[request.object_tag], handle_metadata=pb.ClassHandleMetadata()
        )

    async def AppGetLayout(self, request: pb.AppGetLayoutRequest) -> pb.AppGetLayoutResponse:
        app = self._apps.app(request.app_id)
        objects = [
            pb.Object(object_id=id_, function_handle_metadata=self.get(id_).metadata)
            for id_ in app.functions.values()
        ]
        objects += [
            pb.Object(object_id=id_, class_handle_metadata=pb.ClassHandleMetadata())
            for id_ in app.classes.values()
        ]
        layout = pb.AppLayout(objects=objects, function_ids=app.functions, class_ids=app.classes)
        return pb.AppGetLayoutResponse(app_layout=layout)

    async def AppPublish(self, request: pb.AppPublishRequest) -> pb.AppPublishResponse:
        app = self._apps.app(request.app_id)
        for function_id in request.function_ids.values():
            self.get(function_id)
        app.name, app.state = request.name or app.name, request.app_state
        app.functions, app.classes = dict(request.function_ids), dict(request.class_ids)
        app.deployments += 1
        self._notice(f"{app.name} deployed: {', '.join(app.functions)}")
        return pb.AppPublishResponse(
            url=f"https://loopback.invalid/apps/{app.name}", deployed_at=app.created_at
        )


def _gpu(resources: pb.Resources) -> str:
    name, count = resources.gpu_config.gpu_type, resources.gpu_config.count
    if not count and not name:
        return ""
    if name not in GPUS:
        raise GRPCError(
            Status.INVALID_ARGUMENT, f"Unknown GPU type {name!r}; there are {', '.join(GPUS)}"
        )
    most = 4 if name == "A10" else 8
    if not 1 <= count <= most:
        raise GRPCError(Status.INVALID_ARGUMENT, f"1 to {most} {name} fit a container, not {count}")
    return f"{name}:{count}"


def _url(app: str, function: str, webhook: pb.WebhookConfig) -> str:
    label = webhook.requested_suffix or re.sub(r"[^a-z0-9]+", "-", f"{app}-{function}".lower())
    return f"https://loopback--{label}.modal.run"
