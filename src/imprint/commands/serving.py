"""Serve a checkpoint: ``imprint serve``."""

import contextlib
import errno
import ipaddress
import resource
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from imprint.errors import ConfigError
from imprint.script import sharing

app = typer.Typer()

GRACE_S = 10
"""Given to answers that are being written when the server is told to stop."""
SWITCH_S = 0.0005
"""Longest time one thread keeps Python from the other: the batch waits for it several times a step.
Python's own 5 ms would cost more than the step itself."""


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    checkpoint: Annotated[
        Path, typer.Option(help="The model that answers.", dir_okay=False)
    ] = Path("results/sft.pt"),
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Its tokenizer; by default the one beside it.", dir_okay=False),
    ] = None,
) -> None:
    """Serve a web chat and an OpenAI-compatible API; with IMPRINT_API_KEY set, clients need it."""
    from imprint import serve

    settings = serve.from_environment()
    listener = _listener(host, port)
    _many_files()
    sharing()
    import torch
    import uvicorn

    from imprint.engine import Engine
    from imprint.serve import connection

    with listener:
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        url = f"http://{_address(here, listener.getsockname()[1])}"
        if not _loopback(host) and settings.api_key is None:
            typer.echo(
                f"warning: {host} is open to other machines, and no key is asked for. "
                "Set IMPRINT_API_KEY to ask for one.",
                err=True,
            )
        made = serve.app(
            Engine.load(checkpoint, tokenizer=tokenizer),
            card=serve.card(checkpoint),
            settings=settings,
        )
        key = ' -H "Authorization: Bearer $IMPRINT_API_KEY"' if settings.api_key else ""
        typer.echo(
            f"{checkpoint} answers at {url}, for OpenAI's clients at {url}/v1. Try:\n"
            f"  curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n"
            """    -d '{"messages": [{"role": "user", "content": "Who are you?"}]}'\n"""
            "Ctrl-C stops it."
        )
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # one core is for the clients
        sys.setswitchinterval(SWITCH_S)
        config = connection.config(made, log_level="warning", timeout_graceful_shutdown=GRACE_S)
        with contextlib.suppress(KeyboardInterrupt):  # told again after everything has ended
            uvicorn.Server(config).run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        other = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
        place = _address(host, port)
        raise ConfigError(f"{place}: {error.strerror}. Choose another --{other}.") from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _many_files() -> None:
    """Have as many connections as the system allows: each is a file, 1,024 by default."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # macOS calls its own hard limit too high
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
