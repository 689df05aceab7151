"""A provider of another make, built and installed as pip does it, comes through the door."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imprint import providers
from imprint.errors import ConfigError
from imprint.settings import Provision

PLUGIN = Path(__file__).parents[1] / "plugins" / "imprint-echo"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the plugin, from a copy: building leaves files."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    source.mkdir()
    for path in PLUGIN.glob("*.*"):
        (source / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", str(folder / "site"), str(source)], check=True)
    return folder / "site"


def test_an_installed_package_adds_its_provider(site: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-c", "from imprint.cli import main; main()", "providers"],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"echo +echo-1 +none needed", listed.stdout)


def test_what_is_not_installed_is_refused_with_what_is() -> None:
    with pytest.raises(ConfigError, match=r"'templat'; installed: .*Did you mean 'template'"):
        providers.find("templat")


def test_every_provider_here_says_what_the_door_asks_for() -> None:
    assert {"gemini", "openai", "openrouter", "template"} <= set(providers.names())
    for name in ("gemini", "openai", "openrouter", "template"):
        found = providers.find(name)
        assert issubclass(found, providers.Provider)
        assert found.name == name
        assert found.instant == (found.key_variable is None)
        assert found.conversations and found.shard_size and found.version and found.default_model


def test_terms_have_to_be_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    from imprint.identity import load
    from imprint.providers.openai import OpenAI

    who = load(Path(__file__).parents[2] / "config" / "identities" / "fathom.yaml")
    local = OpenAI(who, Provision(provider="openai", base_url="http://127.0.0.1:1/v1"))
    providers.acknowledged(local, Provision(provider="openai"))
    monkeypatch.setenv("OPENAI_API_KEY", "some-key")
    official = OpenAI(who, Provision(provider="openai"))
    with pytest.raises(ConfigError, match="acknowledge_terms: OpenAI's terms"):
        providers.acknowledged(official, Provision(provider="openai"))
    providers.acknowledged(official, Provision(provider="openai", acknowledge_terms=["openai"]))
