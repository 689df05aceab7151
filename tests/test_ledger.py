"""Results against their manifests and the configuration."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from imprint import artifacts, ledger, recipe, settings, yamlfile
from imprint.cli import app
from imprint.errors import ArtifactError
from imprint.settings import Settings

ROOT = Path(__file__).parent.parent


@pytest.fixture
def given() -> Settings:
    config, _ = yamlfile.load(ROOT / "config" / "config.yaml")
    return settings.resolve(config, root=ROOT)


@pytest.fixture
def results(tmp_path: Path, given: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tokenizer and its manifest, in a folder that is the current one's."""
    monkeypatch.chdir(tmp_path)
    write("tokenizer", Path("results/tokenizer"), recipe.settings("tokenizer", given))
    return Path("results")


def write(stage: str, folder: Path, shape: dict[str, Any], version: int | None = None) -> None:
    made, read = folder / "tokenizer.json", Path("results/corpus/text.jsonl")
    for path in (made, read):
        with artifacts.written(path) as file:
            file.write(f"{path}\n")
    artifacts.write_manifest(
        folder / "manifest.json",
        stage=stage,
        version=recipe.version(stage) if version is None else version,
        outputs=[made],
        inputs=[read],
        settings=shape,
        seed=0,
        watch=artifacts.Stopwatch(),
    )


def only(results: Path) -> ledger.Manifest:
    (found,) = ledger.manifests(results)
    return found


def test_what_is_as_written_has_no_differences(results: Path, given: Settings) -> None:
    assert ledger.differences(only(results)) == []
    assert ledger.outdated(only(results), given) == []


def test_a_changed_and_a_missing_file_are_named(results: Path) -> None:
    (results / "tokenizer" / "tokenizer.json").write_text("other")
    (results / "corpus" / "text.jsonl").unlink()
    changed, missing = ledger.differences(only(results))
    assert changed.startswith("results/tokenizer/tokenizer.json: not what")
    assert missing.startswith("results/corpus/text.jsonl: missing")


def test_another_setting_or_version_is_named(results: Path, given: Settings) -> None:
    write("tokenizer", results / "tokenizer", {"vocabulary": 300}, version=0)
    version, vocabulary = ledger.outdated(only(results), given)
    assert version == f"tokenizer: made by version 0, now {recipe.version('tokenizer')}"
    assert vocabulary.startswith("tokenizer: made with vocabulary 300, now ")


def test_what_stands_on_something_wrong_is_wrong_too(results: Path, given: Settings) -> None:
    faults = ledger.verdict(results, given, who="nobody")
    assert faults["corpus"] == ["results/corpus/manifest.json: missing"]
    assert faults["tokenizer"] == ["made from corpus"]
    assert "made from tokenizer" in faults["base"]


def test_a_damaged_manifest_is_named(results: Path) -> None:
    (results / "tokenizer" / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"tokenizer/manifest\.json: not a manifest"):
        list(ledger.manifests(results))


def test_verify_counts_what_is_right_and_lists_what_is_not(results: Path) -> None:
    good = CliRunner().invoke(app, ["verify"])
    assert (good.exit_code, good.stdout) == (0, "2 files are what 1 manifests say.\n")
    (results / "tokenizer" / "tokenizer.json").write_text("other")
    bad = CliRunner().invoke(app, ["verify"])
    assert isinstance(bad.exception, ArtifactError)
    assert "results/tokenizer/tokenizer.json: not what" in str(bad.exception)


def test_verify_without_results_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["verify", "--results", str(tmp_path)])
    assert isinstance(done.exception, ArtifactError)
    assert "make identity" in str(done.exception)


def test_pieces_may_stay_where_they_were_made_but_not_in_part(results: Path) -> None:
    index, pieces = Path("results/tokens/sft.json"), [Path(f"results/tokens/sft/{n}") for n in "ab"]
    for path in (index, *pieces):
        with artifacts.written(path) as file:
            file.write(path.name)
    artifacts.write_manifest(
        Path("results/tokens/sft.manifest.json"),
        stage="tokens",
        version=1,
        outputs=[index, *pieces],
        inputs=[],
        settings={},
        seed=0,
        watch=artifacts.Stopwatch(),
    )
    pieces[0].unlink()
    refused = CliRunner().invoke(app, ["verify"])
    assert f"{pieces[0]}: missing" in str(refused.exception)
    pieces[1].unlink()
    told = CliRunner().invoke(app, ["verify"])
    assert told.exit_code == 0
    assert "2 pieces of corpus and tokens stayed where they were made." in told.stdout
    index.unlink()
    assert f"{index}: missing" in str(CliRunner().invoke(app, ["verify"]).exception)
