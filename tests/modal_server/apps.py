"""Apps, images, mounts, secrets, environments and billing."""

import dataclasses
import hashlib
import shlex
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

from modal_server.blocks import Store
from modal_server.rpc import Empty, fresh, missing

BUILDER = "2025.06"  # newest image builder that the pinned client knows
SUCCESS = pb.GenericResult(status=pb.GenericResult.GENERIC_STATUS_SUCCESS)


@dataclasses.dataclass
class App:
    """An app, deployed or about to be."""

    id: str
    name: str
    state: int
    functions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Ids of the functions, by name."""

    classes: dict[str, str] = dataclasses.field(default_factory=dict)
    deployments: int = 0
    created_at: float = dataclasses.field(default_factory=time.time)
    stopped_at: float = 0.0

    @property
    def lifecycle(self) -> pb.AppLifecycle:
        """What the client is told about the state."""
        return pb.AppLifecycle(
            app_state=pb.AppState.ValueType(self.state),
            created_at=self.created_at,
            version=self.deployments,
            stopped_at=self.stopped_at,
        )


@dataclasses.dataclass
class Image:
    """What an image is built from; nothing is really built."""

    id: str
    commands: list[str]
    """Dockerfile lines, those of the images it extends first."""

    files: dict[str, str]
    """SHA-256 of each file that goes into it, by path."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its ENV lines set."""
        pairs = [line[4:] for line in self.commands if line.upper().startswith("ENV ")]
        return dict(word.split("=", 1) for line in pairs for word in shlex.split(line))

    @property
    def workdir(self) -> str | None:
        """The last WORKDIR, if there is one."""
        folders = [shlex.split(line)[1] for line in self.commands if line.startswith("WORKDIR ")]
        return folders[-1] if folders else None


@dataclasses.dataclass
class Charge:
    """One line of the billing report."""

    object_id: str
    description: str
    start: datetime
    cost: str
    """USD."""

    by_resource: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


class Apps:
    """Everything that a deployment consists of, except for the functions."""

    def __init__(self, folder: Path, store: Store) -> None:
        """Keep the files of mounts in ``folder``."""
        self.apps: dict[str, App] = {}
        self.images: dict[str, Image] = {}
        self.mounts: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.rates: dict[str, str] = {}
        self.billed: list[Charge] = []
        self._environments = {"main"}
        self._folder, self._store = folder, store
        folder.mkdir(parents=True, exist_ok=True)

    def app(self, app_id: str) -> App:
        """Return an app by its id; a gRPC error if there is none."""
        if app_id not in self.apps:
            raise missing(f"App {app_id}")
        return self.apps[app_id]

    def deployed(self, name: str) -> App | None:
        """Return the app that is deployed under that name."""
        return self._newest(name, pb.APP_STATE_DEPLOYED)

    def _newest(self, name: str, state: int) -> App | None:
        found = [app for app in self.apps.values() if (app.name, app.state) == (name, state)]
        return found[-1] if found else None

    def file(self, digest: str) -> Path:
        """Return where the content of a file of a mount lies."""
        return self._folder / digest

    async def ClientHello(self, request: Empty) -> pb.ClientHelloResponse:
        return pb.ClientHelloResponse(image_builder_version=BUILDER)

    async def EnvironmentGetOrCreate(
        self, request: pb.EnvironmentGetOrCreateRequest
    ) -> pb.EnvironmentGetOrCreateResponse:
        name = request.deployment_name or "main"
        if request.object_creation_type == pb.OBJECT_CREATION_TYPE_CREATE_IF_MISSING:
            self._environments.add(name)
        if name not in self._environments:
            raise missing(f"Environment '{name}'")
        settings = pb.EnvironmentSettings(image_builder_version=BUILDER)
        return pb.EnvironmentGetOrCreateResponse(
            environment_id=f"en-{name}",
            metadata=pb.EnvironmentMetadata(name=name, settings=settings),
        )

    async def AppCreate(self, request: pb.AppCreateRequest) -> pb.AppCreateResponse:
        app = App(fresh("ap"), request.description, request.app_state)
        self.apps[app.id] = app
        return pb.AppCreateResponse(app_id=app.id, app_page_url=f"{self._store.base}/{app.id}")

    async def AppGetByDeploymentName(
        self, request: pb.AppGetByDeploymentNameRequest
    ) -> pb.AppGetByDeploymentNameResponse:
        answer = pb.AppGetByDeploymentNameResponse(environment_name="main")
        if app := self.deployed(request.name):
            answer.app_id = app.id
        elif app := self._newest(request.name, pb.APP_STATE_STOPPED):
            answer.previous_app_id = app.id
        if app:
            answer.lifecycle.CopyFrom(app.lifecycle)
        return answer

    async def AppGetOrCreate(self, request: pb.AppGetOrCreateRequest) -> pb.AppGetOrCreateResponse:
        app = self.deployed(request.app_name)
        if app is None:
            raise missing(f"App '{request.app_name}'")  # apps are created by deployment only
        return pb.AppGetOrCreateResponse(app_id=app.id)

    async def AppGetLifecycle(
        self, request: pb.AppGetLifecycleRequest
    ) -> pb.AppGetLifecycleResponse:
        return pb.AppGetLifecycleResponse(lifecycle=self.app(request.app_id).lifecycle)

    async def AppHeartbeat(self, request: pb.AppHeartbeatRequest) -> Empty:
        self.app(request.app_id)
        return Empty()

    async def AppList(self, request: pb.AppListRequest) -> pb.AppListResponse:
        answer = pb.AppListResponse()
        for app in self.apps.values():
            item = answer.apps.add(app_id=app.id, description=app.name, name=app.name)
            item.state, item.stopped_at = app.lifecycle.app_state, app.stopped_at
            item.created_at = app.created_at
        return answer

    async def ImageGetOrCreate(
        self, request: pb.ImageGetOrCreateRequest
    ) -> pb.ImageGetOrCreateResponse:
        made = request.image
        image_id = f"im-{hashlib.sha256(made.SerializeToString(True)).hexdigest()[:22]}"
        commands: list[str] = []
        files: dict[str, str] = {}
        for base in made.base_images:
            if base.image_id not in self.images:
                raise missing(f"Image {base.image_id}")
            commands += self.images[base.image_id].commands
            files |= self.images[base.image_id].files
        for file in made.context_files:
            files[file.filename] = hashlib.sha256(file.data).hexdigest()
        if made.context_mount_id:
            files |= self.mount(made.context_mount_id)
        commands += made.dockerfile_commands
        self.images[image_id] = Image(image_id, commands, files)
        metadata = pb.ImageMetadata(image_builder_version=BUILDER)
        return pb.ImageGetOrCreateResponse(image_id=image_id, result=SUCCESS, metadata=metadata)

    def mount(self, mount_id: str) -> dict[str, str]:
        """Return the files of a mount; a gRPC error if there is none."""
        if mount_id not in self.mounts:
            raise missing(f"Mount {mount_id}")
        return self.mounts[mount_id]

    async def MountBatchedCheckExistence(
        self, request: pb.MountBatchedCheckExistenceRequest
    ) -> pb.MountBatchedCheckExistenceResponse:
        unknown = [name for name in request.sha256_hex_hashes if not self.file(name).exists()]
        return pb.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=unknown)

    async def MountPutFile(self, request: pb.MountPutFileRequest) -> pb.MountPutFileResponse:
        if request.WhichOneof("data_oneof") is not None:
            by_blob = request.WhichOneof("data_oneof") == "data_blob_id"
            content = self._store.blob(request.data_blob_id) if by_blob else request.data
            if hashlib.sha256(content).hexdigest() != request.sha256_hex:
                raise GRPCError(Status.INVALID_ARGUMENT, "the content has another SHA-256")
            self.file(request.sha256_hex).write_bytes(content)
        return pb.MountPutFileResponse(exists=self.file(request.sha256_hex).exists())

    async def MountGetOrCreate(
        self, request: pb.MountGetOrCreateRequest
    ) -> pb.MountGetOrCreateResponse:
        files = {file.filename: file.sha256_hex for file in request.files}
        absent = [name for name, digest in files.items() if not self.file(digest).exists()]
        if absent:
            raise GRPCError(Status.FAILED_PRECONDITION, f"not uploaded: {', '.join(absent)}")
        key = hashlib.sha256(repr((request.deployment_name, sorted(files.items()))).encode())
        mount_id = f"mo-{key.hexdigest()[:22]}"
        self.mounts[mount_id] = files
        metadata = pb.MountHandleMetadata(content_checksum_sha256_hex=key.hexdigest())
        return pb.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)

    async def SecretGetOrCreate(
        self, request: pb.SecretGetOrCreateRequest
    ) -> pb.SecretGetOrCreateResponse:
        name = request.deployment_name
        secret_id = f"st-{hashlib.sha256(name.encode()).hexdigest()[:22]}" if name else fresh("st")
        lookup = request.object_creation_type == pb.OBJECT_CREATION_TYPE_UNSPECIFIED
        if lookup and secret_id not in self.secrets:
            raise missing(f"Secret '{name}'")
        variables = self.secrets.setdefault(secret_id, dict(request.env_dict))
        lacking = [key for key in request.required_keys if key not in variables]
        if lacking:
            raise missing(f"{', '.join(lacking)} in Secret '{name}'")
        metadata = pb.SecretMetadata(name=name, keys=list(variables), environment_name="main")
        return pb.SecretGetOrCreateResponse(secret_id=secret_id, metadata=metadata)

    async def WorkspaceNameLookup(self, request: Empty) -> pb.WorkspaceNameLookupResponse:
        return pb.WorkspaceNameLookupResponse(username="loopback")

    async def WorkspaceBillingRates(
        self, request: pb.WorkspaceBillingRatesRequest
    ) -> pb.WorkspaceBillingRatesResponse:
        lines = [f"{name}: {usd}" for name, usd in self.rates.items()]
        return pb.WorkspaceBillingRatesResponse(rates=self.rates, formatted="\n".join(lines))

    async def WorkspaceBillingReport(
        self, request: pb.WorkspaceBillingReportRequest
    ) -> AsyncIterator[pb.WorkspaceBillingReportItem]:
        since = request.start_timestamp.ToDatetime(UTC)
        until = request.end_timestamp.ToDatetime(UTC)
        for charge in self.billed:
            wanted = not request.app_ids or charge.object_id in request.app_ids
            if wanted and since <= charge.start < until:
                item = pb.WorkspaceBillingReportItem(
                    object_id=charge.object_id,
                    description=charge.description,
                    environment_name="main",
                    cost=charge.cost,
                    tags={
                        name: value
                        for name, value in charge.tags.items()
                        if name in request.tag_names or "*" in request.tag_names
                    },
                    cost_by_resource=charge.by_resource,
                )
                item.interval.FromDatetime(charge.start)
                yield item
