"""A killed run's lock opens; a living run's stays."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imprint import lockfile

HOLD = """
import sys
from collections.abc import Iterator
from pathlib import Path
from imprint import lockfile
lockfile.open_if_dead(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """Let go of the locks, as the end of a process would."""
    yield
    while lockfile._held:
        lockfile._held.pop().close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Snakemake's folder as a run leaves it that was killed."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.input.lock").touch()
    (tmp_path / "locks" / "0.output.lock").touch()
    return tmp_path


def locks(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "locks").iterdir())


def test_the_lock_of_a_killed_run_is_removed(folder: Path) -> None:
    assert lockfile.open_if_dead(folder)
    assert locks(folder) == []


def test_the_lock_of_a_living_run_stays_until_it_is_killed(folder: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout and run.stdout.readline() == "held\n"
        (folder / "locks" / "0.input.lock").touch()
        assert not lockfile.open_if_dead(folder)
        assert locks(folder) == ["0.input.lock"]
        run.kill()
    lockfile._held.pop().close()  # this process stands for one that has ended
    assert lockfile.open_if_dead(folder)
    assert locks(folder) == []


def test_the_lock_of_a_run_on_another_machine_stays(folder: Path) -> None:
    (folder / "imprint.lock").write_text("elsewhere")
    assert not lockfile.open_if_dead(folder)
    assert len(locks(folder)) == 2


def test_a_folder_that_cannot_be_made_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not lockfile.open_if_dead(tmp_path / "file" / ".snakemake")
