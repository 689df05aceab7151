"""How the scripts of the rules end."""

import subprocess
import sys
from pathlib import Path

import pytest

START = "import os, signal, sys, time; from imprint import errors, script\n"
ENDS = {
    "raise errors.ConfigError('no such thing')": (1, "error: no such thing"),
    "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)": (
        130,
        "error: interrupted. Run again to go on.",
    ),
}


@pytest.mark.parametrize("deed", ENDS)
def test_a_log_ends_with_one_line_that_says_why(tmp_path: Path, deed: str) -> None:
    log = tmp_path / "logs" / "stage.log"
    program = f"{START}with script.logged(sys.argv[1]):\n    print('begun')\n    {deed}\n"
    ran = subprocess.run(
        [sys.executable, "-c", program, str(log)], capture_output=True, text=True, timeout=60
    )
    status, last = ENDS[deed]
    assert log.read_text(encoding="utf-8").splitlines() == ["begun", last]
    assert (ran.returncode, ran.stdout + ran.stderr) == (status, "")


def test_a_fault_of_ours_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    program = f"{START}with script.logged(sys.argv[1]):\n    1 / 0\n"
    ran = subprocess.run([sys.executable, "-c", program, str(log)], capture_output=True, text=True)
    said = log.read_text(encoding="utf-8")
    assert ran.returncode == 1
    assert "This is a fault in imprint, not in your input." in said
    assert "ZeroDivisionError" in said
