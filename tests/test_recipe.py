"""What shapes a stage, and what does not."""

import re
from pathlib import Path

import pytest

from imprint import recipe, settings, yamlfile
from imprint.errors import ConfigError
from imprint.settings import Settings, Watch

ROOT = Path(__file__).parent.parent


@pytest.fixture
def given() -> Settings:
    config, _ = yamlfile.load(ROOT / "config" / "config.yaml")
    return settings.resolve(config, root=ROOT)


def library(tmp_path: Path, **modules: str) -> Path:
    """Write modules by name; ``__`` in a name is a folder."""
    for name, text in modules.items():
        path = tmp_path / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_every_stage_with_a_version_has_one() -> None:
    for stage in recipe.STAGES:
        assert recipe.version(stage) >= 1
        assert recipe.label(stage) == f"{stage} version {recipe.version(stage)}"


def test_a_missing_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("stages/sft.py: no line `VERSION")):
        recipe.version("sft", library(tmp_path, stages__sft="VERSION = '1'\n"))


def test_code_counts_in_every_module_that_is_imported(tmp_path: Path) -> None:
    parts = {
        "stages__a": "from imprint import b\n",
        "b": "def f():\n    from imprint.c import x\n    return x\n",
        "c": "x = 1\n",
        "d": "x = 1\n",
    }
    before = recipe.code("a", library(tmp_path, **parts))
    assert recipe.code("a", library(tmp_path, d="x = 2\n")) == before
    assert recipe.code("a", library(tmp_path, c="x = 2\n")) != before


def test_data_counts_beside_a_package_that_is_imported(tmp_path: Path) -> None:
    folder = library(tmp_path, stages__a="from imprint.words import bank\n")
    (folder / "words" / "more").mkdir(parents=True)
    (folder / "words" / "__init__.py").write_text("bank = 1\n")
    seen = set()
    for text in ("- hi\n", "- hello\n"):
        (folder / "words" / "more" / "bank.yaml").write_text(text)
        seen.add(recipe.code("a", folder))
    assert len(seen) == 2


def test_comments_docstrings_and_layout_are_no_code(tmp_path: Path) -> None:
    one = "def f(x):\n    return x + 1\n"
    two = '"""Words."""\n\n\ndef f(x):\n    """More."""\n    # why\n    return (x\n        + 1)\n'
    digests = {recipe.code("a", library(tmp_path, stages__a=text)) for text in (one, two)}
    assert len(digests) == 1
    assert recipe.code("a", library(tmp_path, stages__a=one.replace("1", "2"))) not in digests


def test_what_leaves_the_weights_alone_is_told_but_shapes_nothing(given: Settings) -> None:
    for stage in ("base", "mid", "sft"):
        assert "checkpoint_minutes" not in str(recipe.settings(stage, given))
        assert "'checkpoint_minutes': 15" in str(recipe.passed(stage, given))


def test_shards_cover_every_conversation_once(given: Settings) -> None:
    some = given.model_copy(update={"conversations": 70, "shard_size": 20})
    assert recipe.shards(some) == {
        "0000": (0, 20),
        "0001": (20, 40),
        "0002": (40, 60),
        "0003": (60, 70),
    }


def test_a_package_that_is_wanted_and_missing_is_refused_before_any_job(
    given: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = given.model_copy(update={"watch": Watch(tensorboard=True)})
    recipe.check(watched)
    monkeypatch.setattr(recipe, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"watch\.tensorboard: .*`pip install tensorboard`"):
        recipe.check(watched)


def test_unknown_providers_and_sources_are_refused_by_name(given: Settings) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml: provider: .*'gemni'.*template"):
        recipe.check(given.model_copy(update={"provider": "gemni"}))
    sft = given.sft.model_copy(update={"chat": {"webchat": 5}})
    with pytest.raises(ConfigError, match=r"'webchat'.*installed: .*embedded"):
        recipe.check(given.model_copy(update={"sft": sft}))
