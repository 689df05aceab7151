"""The Volume gets what it has not got, and what comes from there is whole."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import modal
import pytest

from modal_server import Cloud
from snakemake_executor_plugin_modal.volume import Folder, Missing


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with Cloud(tmp_path / "cloud") as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        yield cloud


@pytest.fixture
def run(cloud: Cloud) -> Iterator[Callable[..., None]]:
    """Return what a run of Snakemake does with its copy on the Volume: a new record is read."""
    token = cloud.environment["MODAL_TOKEN_ID"], cloud.environment["MODAL_TOKEN_SECRET"]
    with modal.Client.from_credentials(*token) as client:
        volume = modal.Volume.from_name("v", create_if_missing=True, version=2, client=client)

        def run(*steps: Callable[[Folder], Coroutine[Any, Any, None]], prefix: str = "p") -> None:
            async def all_steps() -> None:
                folder = Folder(volume, prefix, prefix, Path(".snakemake/modal/volume.json"))
                await asyncio.gather(*(step(folder) for step in steps))

            asyncio.run(all_steps())

        yield run


def there(cloud: Cloud, path: str) -> Path:
    return cloud.volume("v") / "p" / path


def test_an_unchanged_file_costs_nothing_in_the_next_run(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    Path("a.txt").write_text("a")
    Path("b.txt").write_text("b")
    run(lambda folder: folder.bring(["a.txt", "b.txt"]))
    sent, asked = cloud.uploaded_bytes, cloud.calls["VolumePutFiles2"]
    os.utime("a.txt")
    run(lambda folder: folder.bring(["b.txt"]))
    assert (cloud.uploaded_bytes, cloud.calls["VolumePutFiles2"]) == (sent, asked)
    run(lambda folder: folder.bring(["a.txt"]))  # touched: asked for, but nothing of it is sent
    assert cloud.uploaded_bytes == sent
    Path("a.txt").write_text("c")
    run(lambda folder: folder.bring(["a.txt"]))
    assert there(cloud, "a.txt").read_text() == "c"


def test_what_a_job_made_there_is_never_sent_back(cloud: Cloud, run: Callable[..., None]) -> None:
    there(cloud, "results").mkdir(parents=True)
    there(cloud, "results/base.pt").write_bytes(b"w" * 3_000_000)
    run(lambda folder: folder.fetch(["results/base.pt"], []))
    assert Path("results/base.pt").stat().st_size == 3_000_000
    run(lambda folder: folder.bring(["results/base.pt"]))
    assert (cloud.uploaded_bytes, cloud.calls["VolumePutFiles2"]) == (0, 0)


def test_what_somebody_changed_there_or_another_place_is_sent_again(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    Path("a.txt").write_text("a")
    run(lambda folder: folder.bring(["a.txt"]))
    there(cloud, "a.txt").write_text("damaged")
    run(lambda folder: folder.bring(["a.txt"]))
    assert there(cloud, "a.txt").read_text() == "a"
    there(cloud, "a.txt").unlink()
    run(lambda folder: folder.bring(["a.txt"]))
    assert there(cloud, "a.txt").read_text() == "a"
    run(lambda folder: folder.bring(["a.txt"]), prefix="q")
    assert (cloud.volume("v") / "q/a.txt").read_text() == "a"


def test_a_source_that_is_gone_goes_there_and_nothing_else(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    for name in ("Snakefile", "old.smk", "data.txt"):
        Path(name).write_text(name)
    run(lambda folder: folder.bring(["Snakefile", "old.smk"], "source"))
    run(lambda folder: folder.bring(["data.txt"]))
    there(cloud, "state").write_text("of a job")
    Path("old.smk").unlink()
    Path("data.txt").unlink()
    run(lambda folder: folder.bring(["Snakefile"], "source"))
    assert sorted(p.name for p in there(cloud, "").iterdir()) == ["Snakefile", "data.txt", "state"]


def test_of_extra_files_the_newer_wins(cloud: Cloud, run: Callable[..., None]) -> None:
    there(cloud, "").mkdir(parents=True)
    for name in ("made", "stale"):
        Path(name).write_text(f"{name} here")
        there(cloud, name).write_text(f"{name} there")
    os.utime("made", (1e9, 1e9))
    os.utime(there(cloud, "stale"), (1e9, 1e9))
    Path("only").write_text("only here")
    run(lambda folder: folder.bring(["made", "stale", "only"], "extra"))
    found = [there(cloud, name).read_text() for name in ("made", "stale", "only")]
    assert found == ["made there", "stale here", "only here"]


def test_extra_files_that_are_gone_or_half_fetched_stay_away(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    Path("folder.part").mkdir()
    for name in ("whole", "half.part", "folder.part/of-it"):
        Path(name).write_text(name)
    run(lambda folder: folder.bring(["whole", "half.part", "folder.part/of-it", "gone"], "extra"))
    assert [path.name for path in there(cloud, "").iterdir()] == ["whole"]


def test_what_many_jobs_want_at_once_travels_once(cloud: Cloud, run: Callable[..., None]) -> None:
    Path("shared").write_bytes(b"x" * 100_000)
    for number in range(50):
        Path(f"own{number}").write_text(str(number))
    run(*(lambda f, n=n: f.bring(["shared", f"own{n}"]) for n in range(50)))
    assert len(list(there(cloud, "").iterdir())) == 51
    assert cloud.calls["VolumePutFiles2"] <= 4  # two batches, each asked for twice
    assert cloud.uploaded_bytes < 110_000


def test_what_comes_while_another_batch_travels_is_not_forgotten(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    for name in ("first", "second"):
        Path(name).write_text(name)
    cloud.fault("VolumePutFiles2", delay_s=0.3)

    async def later(folder: Folder) -> None:
        await asyncio.sleep(0.1)
        await folder.bring(["second"])

    run(lambda folder: folder.bring(["first"]), later)
    assert there(cloud, "second").read_text() == "second"


def test_a_folder_is_replaced_as_a_whole(cloud: Cloud, run: Callable[..., None]) -> None:
    there(cloud, "out/deep").mkdir(parents=True)
    there(cloud, "out/deep/new").write_text("new")
    Path("out").mkdir()
    Path("out/old").write_text("old")
    run(lambda folder: folder.fetch(["out"], ["out"]))
    assert [str(path) for path in Path("out").rglob("*")] == ["out/deep", "out/deep/new"]
    run(lambda folder: folder.bring(["out/deep/new"]))
    assert cloud.calls["VolumePutFiles2"] == 0
    assert not list(Path().glob("*.part"))


def test_what_is_not_there_is_named_and_what_arrives_in_part_is_not_seen(
    cloud: Cloud, run: Callable[..., None]
) -> None:
    with pytest.raises(Missing, match=r"model\.pt is not on the Volume"):
        run(lambda folder: folder.fetch(["model.pt"], []))
    there(cloud, "").mkdir(parents=True)
    there(cloud, "model.pt").write_bytes(b"m" * 1000)
    Path("model.pt").write_text("old")
    cloud.http_fault("get", status=410, times=50)
    with pytest.raises(Exception, match="410"):
        run(lambda folder: folder.fetch(["model.pt"], []))
    assert Path("model.pt").read_text() == "old"
    assert not list(Path().glob("*.part"))
