"""Is the account ready? ``python -m snakemake_executor_plugin_modal.smoke`` tells.

Does once, in small, what the executor does for each job, and says how long each step took: it signs
in, makes a Volume, builds the image and deploys the function, sends a file, runs a command on a
fraction of a core, follows its log, fetches a file. Costs far less than a cent; what stays at Modal
afterwards, an app without a container and an image, costs nothing.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from . import image, money
from .call import quietly_cancel
from .logs import Log
from .outcome import outcome_of
from .patience import explained
from .settings import VOLUME
from .text import span
from .volume import Folder

PREFIX = "smoke"
CORES, MEMORY_MIB = 0.125, 128  # the least that Modal gives
TIMEOUT_S = 300
LOG_S = 60  # for a line to come from the container to here


def main() -> None:
    """Go through the list; leave with status 1 at the first step that fails."""
    parser = argparse.ArgumentParser(prog="smoke", description=__doc__)
    parser.add_argument("--volume", default=VOLUME, help="Volume (default: %(default)s)")
    parser.add_argument("--environment", help="Modal environment (default: the usual one)")
    usual = Path("requirements.txt")
    parser.add_argument(
        "--requirements",
        type=Path,
        default=usual if usual.is_file() else None,
        help="requirements file for the image (default: requirements.txt, if there is one)",
    )
    given = parser.parse_args()
    if given.requirements:
        given.requirements = given.requirements.absolute()
    try:
        image.checked(given.requirements)
        with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
            usd = asyncio.run(_checks(given.volume, given.environment, given.requirements))
    except WorkflowError as error:
        sys.exit(f"failed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    _tell(f"All is well. It has cost about ${usd:.4f}.")


async def _checks(name: str, environment: str | None, requirements: Path | None) -> float:
    """Do every step; return what it cost, in USD."""
    import modal

    with _step("sign in"):
        client = await modal.Client.from_env.aio()
        await client.hello.aio()  # type: ignore[no-untyped-call]
    with _step(f"Volume {name}"):
        volume = modal.Volume.from_name(
            name, environment_name=environment, create_if_missing=True, version=2
        )
        await volume.hydrate.aio()
    place = image.Place("snakemake-smoke", environment, name, PREFIX, requirements, ())
    options = {"cpu": CORES, "memory": MEMORY_MIB, "timeout": TIMEOUT_S}
    with _step("image and function (minutes, where they are new)"):
        function = await image.Deployed(place, volume).function([], options)
    words = uuid.uuid4().hex
    folder = Folder(volume, PREFIX, PREFIX, Path("record.json"))
    Path("sent.txt").write_text(words, encoding="utf-8")
    with _step("a file to the Volume"):
        await folder.bring(["sent.txt"])
    with _step("a function on a CPU"):
        started = time.time()
        call = await function.spawn.aio(f"cp sent.txt made.txt; echo {words}", "", {})
        log = Log(Path("call.log"), "smoke", lambda: True, time.time() + LOG_S)
        following = asyncio.create_task(log.follow(call))
        outcome = await outcome_of(call, None)
        if outcome.kind != "ended" or outcome.result["status"] or not outcome.result["synced"]:
            raise WorkflowError(f"The call {call.object_id} says {outcome}. Run again.")
    with _step("its log"):
        while words not in log.path.read_text(encoding="utf-8"):
            await asyncio.sleep(0.1)
            if time.time() > started + LOG_S:
                raise WorkflowError(f"No line has come; `modal app logs {place.app}` may tell why.")
        await quietly_cancel(following)
    with _step("a file from the Volume"):
        await folder.fetch(["made.txt"], [])
        if Path("made.txt").read_text(encoding="utf-8") != words:
            raise WorkflowError(f"What came back is not what was sent to {name}/{PREFIX}.")
        await volume.remove_file.aio(f"/{PREFIX}", recursive=True)
    seconds: float = outcome.result["seconds"]
    return money.rate("", CORES, MEMORY_MIB) * seconds / 3600


@contextmanager
def _step(name: str) -> Iterator[None]:
    """Tell how long the block took.

    Raises:
        WorkflowError: It failed; the message tells what to do.
    """
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        raise WorkflowError(f"{name}: {explained(error)}") from error
    _tell(f"ok  {span(time.monotonic() - began):>7}  {name}")


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
