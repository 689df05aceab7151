"""The pipeline on a stand-in for Modal, to watch it without an account: make modal-local.

Uploads, calls, logs and volumes are real, but go to tests/modal_server; GPUs and prices are not. It
works on a copy of the project, so results/ stays as it is.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from modal_server import Cloud
from modal_server.__main__ import say

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".snakemake" / "modal-local"
# One process for each training stage, with the threads of a run without Modal: so the bits are the
# same as well.
HERE = (
    *("--set-resources", *(f"{rule}:gpu=1" for rule in ("base", "mid", "sft", "evaluate"))),
    *(f"{rule}:gpu_model=H100" for rule in ("base", "mid", "sft", "evaluate")),
    *("--set-threads", "base=1", "mid=2", "sft=2"),
)


def copied(folder: Path) -> Path:
    """Return a new copy of this project in ``folder``, a Git repository of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folder


def watched(options: list[str]) -> int:
    """Run the pipeline, tell where to look, and return Snakemake's exit status.

    Args:
        options: More of them for Snakemake.
    """
    project = copied(FOLDER / "project")
    snakemake = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/modal"]
    signal.signal(signal.SIGINT, lambda *_: None)  # Snakemake cancels its calls; then all ends
    with Cloud(FOLDER / "cloud", notice=say) as cloud:
        environment = {**os.environ, **cloud.environment}
        done = subprocess.run([*snakemake, *HERE, *options], cwd=project, env=environment)
    if not done.returncode:
        subprocess.run([Path(sys.executable).with_name("imprint"), "summary"], cwd=project)
    for name, path in {
        "volumes": FOLDER / "cloud" / "volumes",
        "logs": project / ".snakemake" / "log" / "modal",
        "receipts": project / ".snakemake" / "modal" / "receipts.jsonl",
    }.items():
        say(f"{name} are in {path.relative_to(ROOT)}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(watched(sys.argv[1:]))
