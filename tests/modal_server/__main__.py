"""Modal on loopback as a process of its own.

PYTHONPATH=tests python -m modal_server --folder DIR
"""

import argparse
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

from modal_server.cloud import Cloud


def say(text: str) -> None:
    """Tell people what happens."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} modal: {text}\n")
    sys.stderr.flush()


def main() -> None:
    """Serve until interrupted; print what a shell must export to be served."""
    parser = argparse.ArgumentParser(description="Modal on loopback.")
    parser.add_argument("--folder", type=Path, required=True, help="where volumes are kept")
    parser.add_argument("--port", type=int, default=0, help="of the gRPC server")
    options = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Cloud(options.folder, port=options.port, notice=say) as cloud:
            for name, value in cloud.environment.items():
                sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
            sys.stdout.flush()
            stop.wait()
    except OSError as error:
        sys.exit(f"{options.folder}, port {options.port}: {error}. Take another folder or port.")


if __name__ == "__main__":
    main()
