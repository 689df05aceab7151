"""What travels to Modal and what never does."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from executor.kit import MINI, TOKEN, Mini

pytestmark = pytest.mark.workflow


def committed(mini: Mini) -> set[str]:
    return {str(path.relative_to(mini.remote)) for path in mini.remote.rglob("*") if path.is_file()}


def every_byte(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def versioned(mini: Mini) -> Mini:
    """The small workflow under git, with all that has to stay here."""
    (mini.root / ".gitignore").write_text("results/\n.snakemake/\n*.private\n")
    for name in (".env", "id_rsa", "service.pem", "notes.private", "keys/openai.key"):
        (mini.root / name).parent.mkdir(exist_ok=True)
        (mini.root / name).write_text(f"{TOKEN} of {name}\n")
    (mini.root / "somewhere.txt").write_text(TOKEN)
    (mini.root / "requirements.txt").write_text("six\n")
    (mini.root / "untracked.txt").write_text("new, and not ignored\n")
    for words in (["init", "-q"], ["add", "Snakefile", "config.yaml", "words.txt", "train.py"]):
        subprocess.run(["git", *words], cwd=mini.root, check=True)
    return mini


def test_sources_travel_but_no_history_result_ignored_file_or_key(versioned: Mini) -> None:
    away = {"SOMEBODYS_KEY_FILE": str(versioned.root / "somewhere.txt")}
    told = versioned.start("results/secret.txt", "results/report.txt", environment=away).ends()
    found = committed(versioned)
    new = {"untracked.txt", "requirements.txt", ".gitignore"}
    sources = {"Snakefile", "config.yaml", "words.txt", "train.py", *new}
    made = {name for name in found if name.startswith((".snakemake/", "results/"))}
    assert found - made == sources
    assert "results/data.txt" in made and "results/report.txt" not in made
    for name in (".env", "id_rsa", "service.pem", "keys/openai.key", "somewhere.txt"):
        assert name in told

    # Nor does the secret itself lie anywhere, though the job has had it.
    assert TOKEN.encode() not in every_byte(versioned.remote)
    assert TOKEN.encode() not in every_byte(versioned.root / ".snakemake")
    assert TOKEN not in told
    assert TOKEN not in repr(versioned.cloud.images)
    pins = {"/.requirements.txt": hashlib.sha256(b"six\n").hexdigest()}
    assert [image.files for image in versioned.cloud.images if image.files not in ({}, pins)] == []
    assert not any(versioned.cloud.mounts.values())
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert (versioned.results / "secret.txt").read_text().split()[0] == digest


def test_what_differs_there_is_put_right_and_what_is_gone_here_is_removed(versioned: Mini) -> None:
    (versioned.root / "folder").mkdir()
    (versioned.root / "folder" / "old.py").write_text("print()\n")
    versioned.start().ends()
    assert "folder/old.py" in committed(versioned)
    (versioned.root / "folder" / "old.py").unlink()
    (versioned.remote / "train.py").write_text("raise SystemExit(1)\n")
    versioned.start("--config", "steps=5").ends()
    assert "folder/old.py" not in committed(versioned)
    assert (versioned.remote / "train.py").read_text() == (MINI / "train.py").read_text()
    assert (versioned.results / "model.txt").read_text().startswith("5 steps")


def test_what_a_job_made_there_is_not_sent_there_for_the_next(mini: Mini) -> None:
    mini.start("results/larger.txt").ends()
    assert (mini.results / "larger.txt").read_text() == "20000000\n"
    assert sum(path.stat().st_size for path in (mini.results / "large").iterdir()) == 20_000_000
    assert mini.cloud.uploaded_bytes < 100_000
