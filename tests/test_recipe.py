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


def test_every_stage_with_a_version_has_one() -> None:
    for stage in recipe.STAGES:
        assert recipe.version(stage) >= 1
        assert recipe.label(stage) == f"{stage} version {recipe.version(stage)}"


def test_a_missing_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "sft.py").write_text("VERSION = '1'\n")
    with pytest.raises(ValueError, match=re.escape("stages/sft.py: no line `VERSION")):
        recipe.version("sft", tmp_path)


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
