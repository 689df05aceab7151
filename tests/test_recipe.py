"""What shapes a stage, and what does not."""

import re
from pathlib import Path
from typing import Any

import pytest

from imports import kit
from imprint import dial, recipe, settings, yamlfile
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
    with pytest.raises(ConfigError, match=r"^provider: .*'gemni'.*template"):
        recipe.check(given.model_copy(update={"provider": "gemni"}))
    sft = given.sft.model_copy(update={"chat": {"webchat": 5}})
    with pytest.raises(ConfigError, match=r"'webchat'.*installed: .*embedded"):
        recipe.check(given.model_copy(update={"sft": sft}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"identity_stages": ["sft"], "mid": {"chat": {}}}, r"mid\.chat: .*identity_stages"),
        (
            {"identity_stages": ["sft"], "mid": {"chat": {"modest": 0}}},
            r".*Name a source in mid\.chat",
        ),
        ({"mid": {"chat": {}, "identity_epochs": 0}}, r"mid\.identity_epochs: 0, .*Raise mid"),
        ({"sft": {"chat": {}, "identity_epochs": 0}}, r"sft\.identity_epochs: 0, .*sft\.chat"),
    ],
)
def test_a_stage_with_nothing_to_train_on_is_refused_before_any_job(
    changes: dict[str, Any], told: str
) -> None:
    config, _ = yamlfile.load(ROOT / "config" / "config.yaml")
    changed = settings.merged(config, changes)
    with pytest.raises(ConfigError, match=f"^--config or --configfile: {told}"):
        settings.resolve(changed, root=ROOT, check=recipe.check)


@pytest.mark.parametrize(
    "changes",
    [
        {"mid": {"chat": {}}, "sft": {"chat": {}}},
        {"identity_stages": ["sft"]},
        {"sft": {"identity_epochs": 0}},
    ],
)
def test_a_stage_may_see_the_identity_alone_or_chat_alone(changes: dict[str, Any]) -> None:
    config, _ = yamlfile.load(ROOT / "config" / "config.yaml")
    recipe.check(settings.resolve(settings.merged(config, changes), root=ROOT))


def test_nothing_but_its_folder_shapes_an_imported_model(tmp_path: Path) -> None:
    folder = str(kit.base_dir(tmp_path / "nanochat"))

    def resolved(**changes: Any) -> Settings:
        start = {"scale": "d12", "identity": "who.yaml", "model": {"depth": 2}}
        start["base"] = {"from": folder}
        return settings.resolve(settings.merged(start, changes), root=ROOT)

    plain = resolved()
    recipe.check(plain)
    ours = dial.shape(plain.model)
    assert (ours.vocabulary, ours.context) == (kit.VOCABULARY, 32)
    other = resolved(
        model={"vocabulary": 512, "context": 64, "head_width": 32},
        corpus={"tokenizer_characters": 5000},
        base={"matrix_lr": 0.5, "batch_tokens": 4, "tokens": 5000},
    )
    for stage in ("tokenizer", "base", "mid", "sft"):
        assert recipe.settings(stage, other) == recipe.settings(stage, plain)
    assert recipe.settings("base", plain) == {"training": {"from": folder}, "seed": 1337}
    resolved(sft={"batch_tokens": 32})
    with pytest.raises(ConfigError, match=r"sft\.batch_tokens: 31 .* one row of 32\. Raise it\.$"):
        resolved(sft={"batch_tokens": 31})
