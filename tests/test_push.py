"""Uploads to a hub on the loopback, through the hub's own client."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imprint.artifacts import Stopwatch, write_manifest
from stubs.hub import READER, TOKEN, Hub

CARD = "---\nlicense: mit\n---\n# Ada\n"
LARGE = bytes(range(256)) * 5000


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """An export in the folder of a project; its weights are any bytes."""
    folder = tmp_path / "results" / "export"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(LARGE)
    (folder / "config.json").write_text("{}\n")
    (folder / "README.md").write_text(CARD)
    write_manifest(
        folder / "manifest.json",
        stage="export",
        version=1,
        outputs=sorted(folder.iterdir()),
        inputs=[],
        settings={},
        seed=0,
        watch=Stopwatch(),
    )
    return folder


def push(
    export: Path, url: str, *arguments: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Push from the folder of the project, with nothing of this machine's own settings."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    given = {} if token is None else {"HF_TOKEN": token}
    project = export.parent.parent
    return subprocess.run(
        [sys.executable, "-c", "from imprint.cli import main; main()", "push", *arguments],
        cwd=project,
        env={**mine, **given, "HF_ENDPOINT": url, "HF_HOME": str(project / "hf")},
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_the_files_arrive_as_they_are_in_a_private_repository(export: Path) -> None:
    with Hub() as hub:
        done = push(export, hub.url, "model")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{hub.url}/ada/model (private)\n"
        assert hub.private == {"ada/model": True}
        names = {"README.md", "config.json", "model.safetensors"}
        assert hub.files == {name: (export / name).read_bytes() for name in names}
        assert hub.asked["upload"] == hub.asked["commit"] == 1
        assert TOKEN not in done.stdout + done.stderr


def test_a_card_edited_by_hand_goes_to_a_repository_that_exists(export: Path) -> None:
    (export / "README.md").write_text(CARD + "In my words.\n")
    with Hub(public=("org/model",)) as hub:
        done = push(export, hub.url, "org/model")
        assert done.stdout == f"{hub.url}/org/model (public)\n", done.stderr
        assert hub.files["README.md"] == (CARD + "In my words.\n").encode()
        push(export, hub.url, "org/other", "--public")
        assert hub.private == {"org/model": False, "org/other": False}
        assert hub.asked["upload"] == 1, "the hub had the weights already"


def test_a_busy_hub_is_asked_again(export: Path) -> None:
    with Hub(faults={"preupload": [503], "upload": [503]}) as hub:
        done = push(export, hub.url, "model")
        assert done.returncode == 0, done.stderr
        assert hub.files["model.safetensors"] == LARGE
        assert hub.asked["preupload"] == hub.asked["upload"] == 2


@pytest.mark.parametrize(
    ("token", "arguments", "message"),
    [
        (None, ["model"], "HF_TOKEN is not set. Make one that may write at {url}/settings/tokens"),
        (" ", ["model"], "HF_TOKEN is not set."),
        ("hf_wrong", ["model"], "HF_TOKEN: {url} does not accept it. Make one that may write"),
        (READER, ["model"], "HF_TOKEN: may not write to model (you may not write here). Make"),
        (TOKEN, ["a/b/c"], "a/b/c: no name for a repository ("),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    export: Path, token: str | None, arguments: list[str], message: str
) -> None:
    with Hub() as hub:
        done = push(export, hub.url, *arguments, token=token)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: {message.format(url=hub.url)}")
        assert "Traceback" not in done.stderr and not hub.files
        assert not token or token == " " or token not in done.stderr


def test_a_hub_out_of_order_is_named(export: Path) -> None:
    with Hub(faults={"create": [500]}) as hub:
        done = push(export, hub.url, "model")
        assert done.stderr.startswith(f"error: model: {hub.url} answers 500 (out of order). What")


def test_a_card_that_the_hub_refuses_is_named(export: Path) -> None:
    (export / "README.md").write_text("---\nlanguage: en\n---\n")
    with Hub() as hub:
        done = push(export, hub.url, "model")
        assert done.stderr.startswith(f"error: results/export/README.md: {hub.url} refuses it (")
        assert '"license" is required' in done.stderr and "Traceback" not in done.stderr
        assert not hub.files


def test_a_hub_that_cannot_be_reached_is_named(export: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = push(export, url, "model")
    assert done.stderr.startswith(f"error: {url}: cannot be reached (")
    assert done.stderr.endswith("Check the network, and HF_ENDPOINT if it is set.\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("manifest.json", "results/export: holds no export. Run `make export` to write one."),
        ("config.json", "results/export/config.json: is missing. Run `make export`"),
    ],
)
def test_without_a_whole_export_nothing_is_uploaded(export: Path, name: str, message: str) -> None:
    (export / name).unlink()
    with Hub() as hub:
        done = push(export, hub.url, "model")
        assert done.returncode == 1 and done.stderr.startswith(f"error: {message}")
        assert not hub.asked


def test_changed_weights_are_not_uploaded(export: Path) -> None:
    (export / "model.safetensors").write_bytes(LARGE[:-1])
    with Hub() as hub:
        done = push(export, hub.url, "model")
        assert "model.safetensors: has changed since it was written. Run" in done.stderr
        assert not hub.asked
