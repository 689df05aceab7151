"""The check of an account, step by step."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from executor.kit import clean
from modal_server import Cloud

STEPS = [
    "sign in",
    "Volume snakemake",
    "image",
    "a file to",
    "a function",
    "its log",
    "a file from",
]


def smoke(folder: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "snakemake_executor_plugin_modal.smoke"],
        cwd=folder,
        env={**clean(), **environment},
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_each_step_is_told_and_what_it_cost_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy==2.0.0\n")
    with Cloud(tmp_path / "cloud") as cloud:
        done = smoke(tmp_path, cloud.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        *lines, last = done.stdout.splitlines()
        assert len(lines) == len(STEPS)
        for line, step in zip(lines, STEPS, strict=True):
            assert re.match(rf"ok +\d+\.\d s  {re.escape(step)}", line)
        assert re.search(r"about \$0\.00\d\d\.$", last)
        (call,) = cloud.spawned
        assert (call.gpu, call.cpu, call.memory, call.status) == ("", 0.125, 128, "done")
        pins = hashlib.sha256(b"numpy==2.0.0\n").hexdigest()
        assert pins in cloud.images[-1].files.values()
        assert list(cloud.volume("snakemake").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"requirements.txt", "cloud"}


def test_without_an_account_the_first_step_says_what_to_do(tmp_path: Path) -> None:
    with Cloud(tmp_path / "cloud") as cloud:
        nobody = {**cloud.environment, "MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}
        done = smoke(tmp_path, nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(r"failed: sign in: .*`modal setup`", done.stderr), done.stderr


def test_a_full_volume_is_told_at_the_step_that_fails(tmp_path: Path) -> None:
    with Cloud(tmp_path / "cloud") as cloud:
        cloud.full_after(0)
        done = smoke(tmp_path, cloud.environment)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    assert re.search(r"^failed: a file to the Volume: .*`modal volume rm`", done.stderr, re.M)
    assert "Traceback" not in done.stderr
