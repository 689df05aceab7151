"""The chat on Modal: what is deployed, what is refused, and the class that answers there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from imprint import artifacts
from imprint.decoding import ROWS
from imprint.serve import Settings
from imprint.serve import cloud as cloud_app
from modal_server import Cloud

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project(tmp_path: Path, results: Path) -> Path:
    """A folder with a trained model, its profile and its pins."""
    folder = tmp_path / "project"
    shutil.copytree(results, folder / "results")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copytree(ROOT / "config", folder / "config")
    shutil.copy(ROOT / "requirements.txt", folder)
    about = {"about": {"file": "config/identities/smarternano.yaml"}}
    artifacts.write_json(folder / "results" / "eval" / "sft.json", about)
    return folder


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with Cloud(tmp_path / "cloud") as cloud:
        yield cloud


def imprint(
    project: Path, command: str, cloud: Cloud | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
    away = cloud.environment if cloud else {"MODAL_CONFIG_PATH": str(project / "no-modal.toml")}
    program = "from imprint.cli import main; main()"
    options = ["--", "--workflow-profile", "profiles/modal"]
    return subprocess.run(
        [sys.executable, "-c", program, command, *options],
        cwd=project,
        env={**mine, **away, **more},
        text=True,
        capture_output=True,
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_chat_is_deployed_once_sent_once_and_taken_away(project: Path, cloud: Cloud) -> None:
    done = imprint(project, "deploy", cloud, IMPRINT_API_KEY="secret-of-mine")
    assert done.returncode == 0, done.stderr
    assert "IMPRINT_API_KEY" not in done.stderr
    assert done.stdout.strip() == "https://loopback--imprint-chat-chat-web.modal.run"
    assert "Nobody there, nothing to pay." in done.stderr and "no GPU" in done.stderr
    [chat] = cloud.apps["imprint-chat"].values()
    assert (chat.gpu, chat.cpu, chat.max_containers, chat.min_containers) == ("", 2.0, 1, 0)
    assert (chat.scaledown_window, chat.snapshot) == (300, True)
    assert chat.max_inputs > ROWS + Settings().queue, "there is room to say no"
    digest = artifacts.sha256(project / "results" / "sft.pt")[:12]
    [(path, (_, folder, read_only))] = chat.volumes.items()
    assert (path, folder, read_only) == ("/model", f"/imprint-chat/{digest}", True)
    there = cloud.volume("snakemake") / "imprint-chat" / digest
    assert files(there) == {
        "results/sft.pt",
        "results/sft.json",
        "results/tokenizer/tokenizer.json",
        "results/eval/sft.json",
        "config/identities/smarternano.yaml",
    }
    assert (there / "results/sft.pt").read_bytes() == (project / "results/sft.pt").read_bytes()
    code = {name for mount in cloud.mounts.values() for name in mount}
    served = {Path(name).name for name in code if "imprint/serve/" in name}
    assert {"cloud.py", "page.html"} <= served
    assert {Path(name).suffix for name in code} == {".py", ".html"}

    sent = cloud.uploaded_bytes
    assert imprint(project, "deploy", cloud).returncode == 0
    assert cloud.uploaded_bytes == sent

    with (project / "results" / "sft.pt").open("ab") as checkpoint:
        checkpoint.write(b"another model")
    assert imprint(project, "deploy", cloud).returncode == 0
    newer = artifacts.sha256(project / "results" / "sft.pt")[:12]
    assert [path.name for path in there.parent.iterdir()] == [newer]

    gone = imprint(project, "undeploy", cloud)
    assert gone.stdout == "imprint-chat is gone.\n", gone.stderr
    assert cloud.apps == {} and not files(cloud.volume("snakemake"))
    again = imprint(project, "undeploy", cloud)
    assert again.returncode == 1
    assert again.stderr.startswith("error: No chat named imprint-chat is at Modal.")


def test_the_class_loads_what_was_sent_and_answers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)  # and back, once it is over
    monkeypatch.setattr(cloud_app, "FOLDER", str(project))
    monkeypatch.setenv("IMPRINT_API_KEY", "mine")
    chat: Any = cloud_app.Chat()
    chat.load()
    chat.wake()
    with TestClient(chat.web()) as client:
        assert client.get("/").headers["content-type"].startswith("text/html")
        key = {"Authorization": "Bearer mine"}
        [model] = client.get("/v1/models", headers=key).json()["data"]
        asked = {
            "model": model["id"],
            "messages": [{"role": "user", "content": "Who are you?"}],
            "max_tokens": 4,
        }
        assert client.post("/v1/chat/completions", json=asked).status_code == 401
        answer = client.post("/v1/chat/completions", json=asked, headers=key).json()
        assert answer["usage"]["completion_tokens"] in range(5)


def test_a_large_model_gets_a_gpu_and_an_open_door_is_told(project: Path, cloud: Cloud) -> None:
    os.truncate(project / "results" / "sft.pt", 201_000_000)  # zeros: one block travels
    done = imprint(project, "deploy", cloud)
    assert done.returncode == 0, done.stderr
    [chat] = cloud.apps["imprint-chat"].values()
    assert (chat.gpu, chat.memory) == ("L4:1", 2048 + 3 * 191)
    assert "(L4; rates of " in done.stderr and "set IMPRINT_API_KEY" in done.stderr


def test_what_is_missing_is_said_before_modal_is_asked(project: Path, cloud: Cloud) -> None:
    (project / "results" / "tokenizer" / "tokenizer.json").unlink()
    done = imprint(project, "deploy", cloud)
    assert done.returncode == 1
    assert done.stderr == (
        "error: results/tokenizer/tokenizer.json: no such file. Run `make identity` to train the "
        "model.\n"
    )
    assert not cloud.calls


@pytest.mark.parametrize("command", ["deploy", "undeploy"])
def test_who_has_no_account_is_told_how_to_get_one(project: Path, command: str) -> None:
    done = imprint(project, command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: Modal does not know who you are. Run `.venv/bin/modal setup` once" in done.stderr
