"""API keys: from the environment, or from a file that the environment names; never shown."""

import logging
import os
import subprocess
from pathlib import Path

from pydantic import SecretStr

from imprint.errors import ConfigError

logger = logging.getLogger("imprint")


def read(variable: str) -> SecretStr:
    """Return the key in environment variable ``variable``, or in the file ``variable``_FILE names.

    If both are set, the variable wins. A file that others can read, or that git tracks, gets a
    warning.

    Raises:
        ConfigError: There is no key, or it cannot be one.
    """
    key, file = _found(variable)
    if file is not None:
        for fault in _exposed(file):
            logger.warning("warning: %s_FILE: %s %s", variable, file, fault)
    return key


def available(variable: str) -> bool:
    """Tell whether `read` would return a key."""
    try:
        _found(variable)
    except ConfigError:
        return False
    return True


def given(variable: str) -> bool:
    """Tell whether anything is said about the key, right or wrong."""
    return variable in os.environ or f"{variable}_FILE" in os.environ


def _found(variable: str) -> tuple[SecretStr, Path | None]:
    """Return the key, and the file it stands in."""
    if variable in os.environ:
        return _checked(os.environ[variable], variable), None
    name = f"{variable}_FILE"
    if name not in os.environ:
        raise ConfigError(
            f"{variable} is not set. Put the key into it, or the path of a file that holds the key "
            f"into {name}; or set provider to template, which needs none."
        )
    file = Path(os.environ[name])
    try:
        text = file.read_bytes().decode(errors="replace")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{name}: {file} cannot be read ({reason}). Correct the path, or put the key into "
            f"{variable}."
        ) from None
    return _checked(text, f"{name}: {file}"), file


def _checked(text: str, where: str) -> SecretStr:
    key = text.strip()
    if not key:
        raise ConfigError(f"{where} is empty. Put the key into it.")
    if not all("!" <= letter <= "~" for letter in key):
        raise ConfigError(
            f"{where} holds a blank, a line break or a character beyond ASCII, which no key has. "
            "Copy the key again, and nothing else."
        )
    return SecretStr(key)


def _exposed(file: Path) -> list[str]:
    """Return in what ways the key in ``file`` is open to others."""
    faults = []
    if file.stat().st_mode & 0o044:
        faults.append("can be read by other users. Run: chmod 600 on it.")
    command = ["git", "-C", str(file.parent), "ls-files", "--error-unmatch", file.name]
    try:
        tracked = subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):  # no git here, so nothing tracks the file
        tracked = False
    if tracked:
        faults.append(
            "is tracked by git, and goes wherever the repository goes. Make a new key, and keep "
            "it outside."
        )
    return faults
