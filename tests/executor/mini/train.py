"""Count to a number, saving each step: python train.py DATA STEPS OUT.

GATE: a folder; without a file `open` in it, the third step does not begin.
COMMIT: a command that keeps what was saved so far.
"""

# ruff: noqa: T201
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Count."""
    data, steps, out = Path(sys.argv[1]).read_text(), int(sys.argv[2]), Path(sys.argv[3])
    gate = Path(os.environ["GATE"], "open") if "GATE" in os.environ else None
    digest = hashlib.sha256(f"{steps} {data}".encode()).hexdigest()[:8]
    state = Path("results", "state", digest, "step")
    state.parent.mkdir(parents=True, exist_ok=True)
    done = int(state.read_text()) if state.exists() else 0
    if done:
        print(f"going on after step {done}", flush=True)
    for step in range(done + 1, steps + 1):
        while step == 3 and gate and not gate.exists():
            time.sleep(0.02)
        print(f"step {step} of {steps}", flush=True)
        state.write_text(str(step))
        if "COMMIT" in os.environ:
            subprocess.run(os.environ["COMMIT"], shell=True, check=True)
    out.write_text(f"{steps} steps on {data.split()}\n")


if __name__ == "__main__":
    main()
