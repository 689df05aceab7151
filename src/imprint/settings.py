"""Every setting, defined once: type, default, limits and meaning.

The JSON schemas in workflow/schemas/ and the tables in config/README.md are generated from these
models; config/config.yaml and the scale files hold values.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from imprint import yamlfile
from imprint.errors import ConfigError


class Part(BaseModel):
    """Base of everything in a configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(Part):
    """Shape of the model. Width is 64 x depth, heads are 64 wide unless said otherwise."""

    depth: PositiveInt = Field(description="Layers; the one dial of size.")
    vocabulary: int = Field(ge=300, le=1_000_000, description="Tokens, special ones included.")
    context: int = Field(ge=32, description="Longest conversation in tokens.")
    head_width: PositiveInt = Field(default=64, description="Width of an attention head.")


class Corpus(Part):
    """Plain text for the tokenizer and for pretraining."""

    source: str = Field(default="embedded", description="A name listed by `imprint sources`.")
    characters: PositiveInt = Field(description="How much text, in characters.")


class Optimizer(Part):
    """Peak learning rates, and how they rise and fall over a stage."""

    matrix_lr: PositiveFloat = Field(default=0.02, description="Muon, for the matrices.")
    embedding_lr: PositiveFloat = Field(default=0.02, description="AdamW, for the embedding.")
    head_lr: PositiveFloat = Field(default=0.004, description="AdamW, for the output head.")
    weight_decay: float = Field(default=0.0, ge=0, description="Of the matrices.")
    warmup: float = Field(default=0.02, ge=0, le=1, description="Share of the steps that rise.")
    cooldown: float = Field(default=0.5, ge=0, le=1, description="Share of the steps that fall.")
    final: float = Field(default=0.05, ge=0, le=1, description="Last rate as a share of the peak.")


class Training(Optimizer):
    """What each training stage can set."""

    batch_tokens: PositiveInt = Field(description="Tokens in an optimizer step, over all ranks.")
    checkpoint_minutes: PositiveFloat = Field(
        default=15, description="Time between two saved states to resume from."
    )


class Base(Training):
    """Pretraining on the corpus."""

    tokens: PositiveInt = Field(description="Tokens to train on; the corpus repeats if too short.")


class Tuning(Training):
    """Training on conversations: mid and sft."""

    identity_epochs: float = Field(default=1.0, ge=0, description="Passes over identity.jsonl.")
    identity_least: int = Field(
        default=0,
        ge=0,
        description="Conversations about the identity at least: a small dataset is repeated.",
    )
    chat: str = Field(default="embedded", description="Source of general chat.")
    chat_conversations: int = Field(default=0, ge=0, description="General chats mixed in.")
    chat_ratio: PositiveFloat | None = Field(
        default=None,
        description="Most chats for each conversation about the identity; null for no limit.",
    )
    whole_answers: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the conversations that train their answers beyond the first words.",
    )


class Evaluation(Part):
    """The held-out test."""

    per_suite: PositiveInt = Field(default=40, description="Questions in each suite.")
    answer_tokens: PositiveInt = Field(default=40, description="Longest answer, in tokens.")


class Price(Part):
    """What a provider's model costs, in USD per million tokens."""

    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class Provision(Part):
    """Who writes the conversations, and on what terms."""

    provider: str = Field(default="template", description="A name listed by `imprint providers`.")
    provider_model: str | None = Field(
        default=None, description="Model the provider should use; null for its default."
    )
    base_url: str | None = Field(
        default=None,
        pattern="^https?://.+",
        description="Where the provider's server is; null for its own.",
    )
    budget_usd: float = Field(
        default=5.0,
        ge=0,
        description="Most that this folder ever spends on conversations, over all runs, in USD.",
    )
    price: Price | None = Field(
        default=None, description="Price of the model; null to look it up in a table."
    )
    in_flight: PositiveInt = Field(
        default=64, description="Most requests under way at once, over all jobs of a run."
    )
    attempts: PositiveInt = Field(
        default=5, description="Answers that a conversation may take until one can be used."
    )
    timeout_s: PositiveFloat = Field(
        default=120, description="Longest wait for an answer, in seconds."
    )
    batch: bool = Field(
        default=False,
        description="Ask in batches: half the price, within a day. OpenRouter and Gemini only.",
    )
    strict_model: bool = Field(
        default=False, description="Stop when another model answers than the one asked for."
    )
    acknowledge_terms: list[str] = Field(
        default=[],
        description="Providers whose terms restrict training on their answers, and are accepted.",
    )
    distillable: bool = Field(
        default=True, description="OpenRouter: only models whose terms allow training on answers."
    )
    upstream: list[str] = Field(
        default=[], description="OpenRouter: the only companies that may answer; all if empty."
    )


class Scale(Part):
    """A file in config/scales: how large the model is and how long it trains."""

    model: Architecture = Field(description="Shape of the model.")
    corpus: Corpus = Field(description="Text for tokenizer and pretraining.")
    base: Base = Field(description="Pretraining.")
    mid: Tuning = Field(description="First training on conversations.")
    sft: Tuning = Field(description="Last training on conversations.")


class Settings(Scale, Provision):
    """The whole configuration: config.yaml laid over the scale it names."""

    identity: str = Field(description="The identity file.")
    identity_stages: list[Literal["mid", "sft"]] = Field(
        default=["mid", "sft"],
        description="Stages that see the identity. [sft] alone makes a change of identity cheap.",
    )
    scale: str = Field(default="tiny", description="A file in config/scales, without .yaml.")
    seed: int = Field(default=1337, ge=0, description="Seed of every random choice.")
    conversations: PositiveInt | None = Field(
        default=None, description="Conversations to plan; null for the provider's default."
    )
    shard_size: PositiveInt | None = Field(
        default=None, description="Conversations in a shard; null for the provider's default."
    )
    validation: float = Field(
        default=0.02, gt=0, lt=0.5, description="Share of the conversations kept for validation."
    )
    near_duplicate: float = Field(
        default=0.9, gt=0, le=1, description="Jaccard similarity from which one of two goes."
    )
    evaluation: Evaluation = Field(default=Evaluation(), description="The held-out test.")

    @model_validator(mode="after")
    def _sft_sees_the_identity(self) -> "Settings":
        if "sft" not in self.identity_stages:
            raise ValueError("identity_stages: sft has to be in the list. Add it.")
        return self


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` laid over it, mapping by mapping.

    Example:
        >>> merged({"sft": {"matrix_lr": 0.02, "chat": "embedded"}}, {"sft": {"matrix_lr": 0.01}})
        {'sft': {'matrix_lr': 0.01, 'chat': 'embedded'}}
    """
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def resolve(
    config: dict[str, Any], *, root: Path, path: Path = Path("config/config.yaml")
) -> Settings:
    """Return the settings that ``config`` and the scale it names amount to.

    Args:
        config: The configuration, as read from config.yaml and the command line.
        root: The project's folder, in which config/scales lies.
        path: Where the configuration came from, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong.
    """
    name = config.get("scale", Settings.model_fields["scale"].default)
    folder = root / "config" / "scales"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(found.stem for found in folder.glob("*.yaml")))
        raise ConfigError(f"{path}: scale: no scale is named {name!r}. Choose one of: {names}.")
    scale, lines = yamlfile.load(file)
    yamlfile.validated(Scale, scale, path=file.relative_to(root), lines=lines)
    given = yamlfile.load(root / path)[1] if (root / path).is_file() else None
    return yamlfile.validated(Settings, merged(scale, config), path=path, lines=given)
