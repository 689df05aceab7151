"""The real pipeline through Modal: what it makes, bit for bit, is what it makes here."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from executor.kit import clean
from modal_server import Cloud
from workflow_kit import ROOT, Project, copied

pytestmark = pytest.mark.workflow

ARTIFACTS = ("tokenizer/tokenizer.json", "identity.jsonl", "base.pt", "mid.pt", "sft.pt")
TRAINING = ("base", "mid", "sft")


def sums(project: Project) -> dict[str, str]:
    return {
        name: hashlib.sha256((project.results / name).read_bytes()).hexdigest()
        for name in ARTIFACTS
    }


def test_the_pipeline_makes_the_same_bits_on_modal_and_nothing_twice(
    finished: Project, tmp_path: Path
) -> None:
    copy = copied(tmp_path / "project")
    for name in ("README.md", "LICENSE"):  # the package is built in each container
        shutil.copy(ROOT / name, copy.root)
    (copy.root / ".gitignore").write_text("results/\n.snakemake/\n__pycache__/\n")
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=copy.root, check=True)
    with Cloud(tmp_path / "cloud") as cloud:
        away = Project(copy.root, more={**clean(), **cloud.environment})
        # One process and one thread each, as here: the bits depend on it.
        hardware = [f"{stage}:{word}" for stage in TRAINING for word in ("gpu=1", "gpu_model=H100")]
        threads = [f"{stage}=1" for stage in TRAINING]
        options = (
            *("results/sft.pt", "--workflow-profile", "profiles/modal"),
            *("--set-resources", *hardware, "--set-threads", *threads),
        )
        done = away.snakemake(*options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sums(away) == sums(finished)
        calls = sorted((call.gpu, call.status) for call in cloud.spawned)
        text = 1 + 1 + 4  # corpus, tokenizer, tokens
        assert calls == [("", "done")] * text + [("H100:1", "done")] * len(TRAINING)

        # Of the results only what was made here is sent there: not a token, not a model.
        sent = {
            file.path.partition("/results/")[2]
            for _, rpc, request in cloud.log
            if rpc == "VolumePutFiles2"
            for file in request.files
        }
        assert sent - {""} == {"identity.jsonl", "identity.val.jsonl"}
        for again in (away.snakemake(*options), away.snakemake("results/sft.pt")):
            assert "Nothing to be done" in again.stderr, again.stderr
        assert len(cloud.spawned) == len(calls)
