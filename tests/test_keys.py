import logging
import subprocess
from pathlib import Path

import pytest

from imprint import keys
from imprint.errors import ConfigError

SECRET = "sk-abc123"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY", raising=False)
    monkeypatch.delenv("A_KEY_FILE", raising=False)


def key_file(folder: Path, text: str = SECRET, mode: int = 0o600) -> Path:
    file = folder / "key"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_key_comes_from_the_environment_and_does_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_KEY", f" {SECRET}\n")
    key = keys.read("A_KEY")
    assert key.get_secret_value() == SECRET
    assert SECRET not in f"{key} {key!r}"
    assert keys.available("A_KEY") and keys.given("A_KEY")


def test_a_key_comes_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(key_file(tmp_path, f"{SECRET}\n")))
    assert keys.read("A_KEY").get_secret_value() == SECRET


def test_the_variable_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_KEY", SECRET)
    monkeypatch.setenv("A_KEY_FILE", str(tmp_path / "missing"))
    assert keys.read("A_KEY").get_secret_value() == SECRET


def test_without_a_key_the_message_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match=r"A_KEY is not set.*A_KEY_FILE.*template"):
        keys.read("A_KEY")
    assert not keys.available("A_KEY") and not keys.given("A_KEY")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_key_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("A_KEY", text)
    with pytest.raises(ConfigError, match="A_KEY is empty"):
        keys.read("A_KEY")
    assert not keys.available("A_KEY")


@pytest.mark.parametrize("text", ["sk-a b", "sk-a\nb", "sk-ä", "sk-a\x07"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("A_KEY", text)
    with pytest.raises(ConfigError, match="A_KEY holds a blank") as refused:
        keys.read("A_KEY")
    assert "sk-" not in str(refused.value)


@pytest.mark.parametrize("text", [None, "", "a b", b"\xff\xfe"], ids=str)
def test_a_file_without_a_key_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | bytes | None
) -> None:
    file = tmp_path / "key"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(0o600)
    monkeypatch.setenv("A_KEY_FILE", str(file))
    with pytest.raises(ConfigError, match=f"A_KEY_FILE: {file}"):
        keys.read("A_KEY")
    assert not keys.available("A_KEY")


def test_a_folder_is_no_key_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read"):
        keys.read("A_KEY")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_key_file_that_others_can_read_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    mode: int,
    warned: bool,
) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(key_file(tmp_path, mode=mode)))
    with caplog.at_level(logging.WARNING, "imprint"):
        keys.read("A_KEY")
    assert ("other users" in caplog.text) == warned
    assert SECRET not in caplog.text


def test_a_key_file_that_git_tracks_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(key_file(tmp_path)))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    keys.read("A_KEY")
    assert not caplog.records
    subprocess.run(["git", "-C", tmp_path, "add", "key"], check=True)
    keys.read("A_KEY")
    assert "tracked by git" in caplog.text and SECRET not in caplog.text


def test_without_git_nothing_is_said_about_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(key_file(tmp_path)))
    monkeypatch.setenv("PATH", "")
    assert keys.read("A_KEY").get_secret_value() == SECRET
    assert not caplog.records


def test_a_listing_gives_no_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("A_KEY_FILE", str(key_file(tmp_path, mode=0o644)))
    assert keys.available("A_KEY")
    assert not caplog.records
