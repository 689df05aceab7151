"""Claims about downloads: they come through, whole and once, or end in one clear sentence."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from imprint.errors import ArtifactError, ImprintError, StorageError
from imprint.sources import download, files
from imprint.sources.files import File, present
from stubs.files import FileServer

BODY = bytes(range(256)) * 4000
"""A megabyte and a little."""

HUB = "datasets/some/text/resolve/main/a.parquet"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of ``/a.parquet``, by itself and as on the hub; waits are short."""
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(download, "_POLL_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer(**{"a.parquet": BODY, HUB: BODY}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def got(server: FileServer, folder: Path, place: str = "a.parquet") -> bytes:
    """Download ``place``; return what came, after checking that nothing else is left."""
    (path,) = present([File(folder / "a.parquet", f"{server.url}/{place}")], label="test")
    assert list(folder.iterdir()) == [path]
    return path.read_bytes()


def test_what_the_hub_sends_us_for_arrives_once_and_is_not_asked_for_again(
    server: FileServer, tmp_path: Path
) -> None:
    assert got(server, tmp_path, HUB) == got(server, tmp_path, HUB) == BODY
    assert server.shelf.asked == [(f"/{HUB}", "")]


def test_a_truncated_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    for place in ("a.parquet", HUB):
        server.shelf.asked.clear()
        server.shelf.faults[f"/{place}"] = ["drop", "503", "drop"]
        assert got(server, tmp_path / place, place) == BODY
        half, more = len(BODY) // 2, len(BODY) - len(BODY) // 4
        ranges = ["", f"bytes={half}-", f"bytes={half}-", f"bytes={more}-"]
        assert server.shelf.asked == [(f"/{place}", asked) for asked in ranges]


@pytest.mark.parametrize("faults", [["drop", "whole"], ["untold drop", ""]])
def test_a_server_that_cannot_go_on_starts_anew(
    server: FileServer, tmp_path: Path, faults: list[str]
) -> None:
    server.shelf.faults["/a.parquet"] = faults
    assert got(server, tmp_path) == BODY


@pytest.mark.parametrize("place", ["a.parquet", HUB])
@pytest.mark.parametrize("size", [100, 700_000, 2_000_000])
def test_a_file_that_has_changed_meanwhile_starts_anew(
    server: FileServer, tmp_path: Path, place: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.shelf.faults[f"/{place}"] = ["drop"]
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with pytest.raises(ArtifactError, match=r"cannot be downloaded: .*payload"):
        got(server, tmp_path, place)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.shelf.files[f"/{place}"] = b"other" * (size // 5)
    assert got(server, tmp_path, place) == b"other" * (size // 5)


def test_a_busy_server_is_asked_again_when_it_says(server: FileServer, tmp_path: Path) -> None:
    server.shelf.faults["/a.parquet"] = ["429", "503", "500"]
    start = time.monotonic()
    assert got(server, tmp_path) == BODY
    assert 0.9 <= time.monotonic() - start < 5


def test_a_damaged_file_is_fetched_once_more_and_then_refused(
    server: FileServer, tmp_path: Path
) -> None:
    server.shelf.faults[f"/{HUB}"] = ["corrupt"]
    assert got(server, tmp_path / "once", HUB) == BODY
    server.shelf.faults["/a.parquet"] = ["corrupt", "corrupt"]
    place = f"a.parquet#sha256={hashlib.sha256(BODY).hexdigest().upper()}"
    with pytest.raises(ArtifactError, match=r"/a\.parquet: arrived damaged twice: its sha256 is"):
        got(server, tmp_path / "twice", place)
    assert not (tmp_path / "twice/a.parquet").exists()
    assert got(server, tmp_path / "twice", place) == BODY


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("401", r"answered 401\. Accept its terms on its page, and put a token .* HF_TOKEN"),
        ("404", r"answered 404\. Check the address, and HF_ENDPOINT"),
        ("451", r"answered 451\. Look at it in a browser"),
        ("page", "sent a web page, not the file"),
    ],
)
def test_a_refusal_is_one_sentence_with_the_next_step_and_no_secret(
    server: FileServer, tmp_path: Path, fault: str, told: str
) -> None:
    server.shelf.faults["/a.parquet"] = [fault]
    with pytest.raises(ArtifactError, match=told) as caught:
        got(server, tmp_path, "a.parquet?key=secret")
    assert "secret" not in str(caught.value)
    assert f"put the file at {tmp_path / 'a.parquet'} by hand" in str(caught.value)
    assert len(server.shelf.asked) == 1


def test_a_server_that_is_away_is_given_up_with_the_next_step(
    server: FileServer, tmp_path: Path
) -> None:
    server.shelf.faults["/a.parquet"] = ["whole drop"] * 20
    away = ("http://127.0.0.1:9/a.parquet", "http://no.such.host.invalid/a.parquet")
    for url in (*away, f"{server.url}/a.parquet"):
        with pytest.raises(ArtifactError, match=r"cannot be downloaded: .*Check the network"):
            present([File(tmp_path / "a.parquet", url)], label="test")
    assert len(server.shelf.asked) == download.ATTEMPTS


def test_the_token_is_shown_to_the_hub_alone(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    assert got(server, tmp_path, HUB) == BODY
    assert server.shelf.tokens == {"hub Bearer hf_fake": 1, "bytes None": 1}


def test_a_full_disk_is_told_before_anything_is_written(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"a\.parquet: the disk is full: the file needs 1 MB"):
        got(server, tmp_path)


def test_one_file_that_cannot_be_had_stops_the_others(server: FileServer, tmp_path: Path) -> None:
    names = ["a.parquet", *(f"{number}.parquet" for number in range(20))]
    with pytest.raises(ImprintError, match="answered 404"):
        present([File(tmp_path / name, f"{server.url}/{name}") for name in names], label="test")
    assert len(server.shelf.asked) <= files.AT_ONCE


def test_files_are_fetched_side_by_side(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file arrives before as many as may be are under way, or one has waited for 10 s."""
    honest, here, waited = server._send, [], []
    together = asyncio.Event()

    async def send(*given: Any) -> web.StreamResponse:
        here.append(given[0].path)
        if len(here) == files.AT_ONCE:
            together.set()
        try:
            await asyncio.wait_for(together.wait(), 10)
        except TimeoutError:
            waited.append(given[0].path)
            together.set()
        return await honest(*given)

    monkeypatch.setattr(server, "_send", send)
    names = [f"{number}.parquet" for number in range(files.AT_ONCE + 2)]
    server.shelf.files |= {f"/{name}": BODY for name in names}
    present([File(tmp_path / name, f"{server.url}/{name}") for name in names], label="test")
    assert len(here) == len(names) and not waited


def test_two_who_want_the_same_file_fetch_it_once(server: FileServer, tmp_path: Path) -> None:
    server.shelf.faults["/a.parquet"] = ["slow"]
    threads = [threading.Thread(target=got, args=(server, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got(server, tmp_path) == BODY
    assert len(server.shelf.asked) == 1


def test_a_killed_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.shelf.faults["/a.parquet"] = ["slow"]
    path = tmp_path / "a.parquet"
    code = (
        "import sys; from pathlib import Path; from imprint.sources.files import File, present; "
        "present([File(Path(sys.argv[1]), sys.argv[2])], label='test')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, f"{server.url}/a.parquet"])
    part = tmp_path / ".a.parquet.part"
    while not part.exists() or part.stat().st_size < len(BODY) // 2:
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert got(server, tmp_path) == BODY
    assert server.shelf.asked[1:] == [("/a.parquet", f"bytes={len(BODY) // 2}-")]
