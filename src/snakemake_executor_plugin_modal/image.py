"""The image, and the one function in it that runs jobs."""

import asyncio
import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError

from .patience import patiently
from .text import say, span, ticking

if TYPE_CHECKING:
    import modal

MOUNT = "/work"
"""Where the Volume is mounted: the working directory of every job."""

FUNCTION = "job"
"""Name of the function within the app."""

MARK = "[snakemake-modal]"
"""Starts the lines of a log that the function writes itself."""

GRACE_S = 25
"""Between being told to stop and being stopped; Modal grants a preempted container 30 s."""

PIN = re.compile(r"^snakemake\s*(?:==\s*([^\s;#]+)|[<>~!=@\[;#]|$)", re.MULTILINE)
"""A line of a requirements file that asks for Snakemake, and the version it pins."""


@dataclass(frozen=True)
class Place:
    """Where jobs run: what of the settings an app is made from."""

    app: str
    """Start of its name; the rest is a digest of all below."""
    environment: str | None
    volume: str
    prefix: str
    requirements: Path | None
    packages: tuple[str, ...]

    def name(self, options: dict[str, Any]) -> str:
        """Return the name of the app; ``options`` are part of its function's definition.

        Another image, Volume or function gets another app: publishing an app anew would end what
        still runs in it.
        """
        pins = self.requirements.read_bytes() if self.requirements else b""
        told = (self.environment, self.volume, self.prefix, self.packages, snakemake())
        code = Path(__file__).read_bytes()
        whole = hashlib.sha256(repr((told, options, sys.version_info[:2])).encode() + pins + code)
        return f"{self.app}-{whole.hexdigest()[:8]}"


def snakemake() -> str:
    """Return the version of Snakemake, which a job on Modal must run as well."""
    from importlib.metadata import version

    return version("snakemake")


def checked(requirements: Path | None) -> None:
    """Refuse a requirements file that is not there or pins another Snakemake.

    Raises:
        WorkflowError: It is so.
    """
    if requirements is None:
        return
    if not requirements.is_file():
        raise WorkflowError(f"modal-requirements is {requirements}, but there is no such file.")
    found = PIN.search(requirements.read_text(encoding="utf-8"))
    if found and found[1] and found[1] != snakemake():
        raise WorkflowError(
            f"{requirements} pins snakemake {found[1]}, but this is {snakemake()}. Both ends must"
            " be the same: change the pin, or install that version here."
        )


def image(requirements: Path | None, packages: tuple[str, ...]) -> "modal.Image":
    """Return the image: this Python, the packages, and Snakemake; no file from here."""
    import modal

    made = modal.Image.debian_slim(python_version=f"3.{sys.version_info.minor}")
    if packages:
        made = made.apt_install(*packages)
    text = requirements.read_text(encoding="utf-8") if requirements else ""
    if requirements:
        made = made.pip_install_from_requirements(str(requirements))
    if not PIN.search(text):
        made = made.pip_install(f"snakemake=={snakemake()}")
    return made.workdir(MOUNT)


class Deployed:
    """The function of a place, deployed once."""

    def __init__(self, place: Place, volume: "modal.Volume") -> None:
        """Deploy nothing yet."""
        self.place, self.volume = place, volume
        self._lock = asyncio.Lock()
        self._functions: dict[str, modal.Function[..., Any, Any]] = {}

    async def function(
        self,
        gpus: list[str],
        options: dict[str, Any],
        attempts: int = 1,
        secrets: "Sequence[modal.Secret]" = (),
    ) -> "modal.Function[..., Any, Any]":
        """Return the function, deployed if it is not there yet.

        Args:
            gpus: Alternatives, of which Modal takes the first that is free. Such a choice can only
                be part of a function's definition; all else is left to the call.
            options: The container, as ``Function.with_options`` takes it.
            attempts: More than one for another container when time is up. (Nothing else counts as
                failed: what fails within a container returns.)
            secrets: Put into the environment.

        Raises:
            WorkflowError: Modal refused; the message says what to do.
        """
        import modal

        fixed = {**options, "attempts": attempts, "gpu": gpus} if len(gpus) > 1 else {}
        name = self.place.name(fixed)
        more = dict(options)
        if attempts > 1:
            more["retries"] = modal.Retries(max_retries=attempts - 1, initial_delay=0.0)
        async with self._lock:
            if name not in self._functions:
                chosen = {**more, "gpu": gpus} if fixed else {}
                self._functions[name] = await patiently(lambda: self._deploy(name, chosen), say)
        if fixed:
            more = {}
        elif gpus:
            more["gpu"] = gpus[0]
        return self._functions[name].with_options(**more, secrets=secrets)

    async def _deploy(self, name: str, options: dict[str, Any]) -> "modal.Function[..., Any, Any]":
        import modal

        environment = self.place.environment
        try:
            function = modal.Function.from_name(name, FUNCTION, environment_name=environment)
            return await function.hydrate.aio()
        except modal.exception.NotFoundError:
            say(f"building {name} on Modal; the first time this takes minutes")
        began = time.monotonic()
        app = modal.App(name)
        app.function(
            name=FUNCTION,
            serialized=True,
            image=image(self.place.requirements, self.place.packages),
            volumes={MOUNT: self.volume.with_mount_options(sub_path=f"/{self.place.prefix}")},
            single_use_containers=True,  # none left idle, and each with the Volume as it is now
            **options,
        )(body())
        async with ticking(lambda: f"building {name}"):
            await app.deploy.aio(name=name, environment_name=environment)
        say(f"built in {span(time.monotonic() - began)}")
        function = modal.Function.from_name(name, FUNCTION, environment_name=environment)
        return await function.hydrate.aio()


def body() -> Callable[[str, str, dict[str, str]], dict[str, Any]]:
    """Return what runs in the container.

    It is made here, within a function, so that it travels by value: a container has not got this
    package.
    """

    def job(command: str, before: str, env: dict[str, str]) -> dict[str, Any]:
        import contextlib
        import os
        import signal
        import subprocess
        import time

        began = time.monotonic()
        try:
            ask = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
            found = subprocess.run(ask, capture_output=True, text=True, timeout=30).stdout
            gpus = found.split("\n")[:-1]
        except (OSError, subprocess.TimeoutExpired):
            gpus = []
        where = f" on {len(gpus)} x {gpus[0]}" if gpus else ""
        print(MARK, f"started{where}", flush=True)  # noqa: T201
        child: subprocess.Popen[bytes] | None = None
        status: int | None = None
        synced = 1
        try:
            # One shell for both, so that what the first exports reaches the second.
            both = f"{{ {before}\n}} && {command}" if before else command
            # A session of its own, so that a signal reaches all of it, and only through us.
            child = subprocess.Popen(
                ["bash", "-c", both], env=os.environ | env, start_new_session=True
            )
            status = child.wait()
        except BaseException as told:  # preempted or cancelled; both come as exceptions
            print(MARK, f"told to stop ({type(told).__name__}); saving", flush=True)  # noqa: T201
            if child is not None:
                with contextlib.suppress(ProcessLookupError):  # all of them are gone
                    os.killpg(child.pid, signal.SIGTERM)
                    until = time.monotonic() + GRACE_S
                    while time.monotonic() < until:
                        child.poll()
                        os.killpg(child.pid, 0)
                        time.sleep(0.1)
                    os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            # Also after a failure: logs, and states to resume from, must not be lost.
            synced = subprocess.run(["sync", "."]).returncode
            seconds = time.monotonic() - began
            end = f"ended: status {status}, sync {synced}, {seconds:.1f} s"
            print(MARK, end, flush=True)  # noqa: T201
        return {"status": status, "synced": synced == 0, "seconds": seconds, "gpus": gpus}

    return job
