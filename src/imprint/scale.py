"""The settings of a scale: how large a model is, what it reads and how it is trained.

What is null here and in a scale file follows from the depth; see `imprint.dial`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator


class Part(BaseModel):
    """Base of everything in a configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True
    )


class Architecture(Part):
    """Shape of the model. Width is 64 x depth."""

    depth: PositiveInt = Field(description="Layers; the one dial of size.")
    vocabulary: int = Field(ge=300, le=1_000_000, description="Tokens, special ones included.")
    context: int = Field(ge=32, description="Longest conversation in tokens.")
    head_width: PositiveInt | None = Field(
        default=None, description="Width of an attention head; null for 128, or 64 below depth 12."
    )


class Corpus(Part):
    """Plain text for the tokenizer and for pretraining."""

    source: str = Field(
        default="embedded",
        description="A name listed by `imprint sources`; or JSONL and parquet files: a path, "
        "a pattern such as `text/*.parquet`, a URL, or a .txt list of them.",
    )
    characters: PositiveInt | None = Field(
        default=None, description="How much text, in characters; null for 4.8 a token of base."
    )
    tokenizer_characters: PositiveInt | None = Field(
        default=None, description="How much of it the tokenizer learns from; null for all."
    )


class Optimizer(Part):
    """Peak learning rates, and how they rise and fall over a stage."""

    matrix_lr: PositiveFloat = Field(default=0.02, description="Muon, for the matrices.")
    embedding_lr: PositiveFloat | None = Field(
        default=None,
        description="AdamW, for the embedding; null for 0.2, less the wider the model.",
    )
    head_lr: PositiveFloat | None = Field(
        default=None,
        description="AdamW, for the output head; null for 0.004, less the wider the model.",
    )
    rate: PositiveFloat = Field(default=1.0, description="Multiplies all three rates.")
    momentum: float = Field(
        default=0.85, ge=0, lt=1, description="Muon's; it starts at 0.85 and is there by step 300."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Of the matrices.")
    gradient_clip: PositiveFloat | None = Field(
        default=None, description="Longest gradient; a longer one is scaled down. null for any."
    )
    warmup: float = Field(default=0.02, ge=0, le=1, description="Share of the steps that rise.")
    cooldown: float = Field(default=0.5, ge=0, le=1, description="Share of the steps that fall.")
    final: float = Field(default=0.05, ge=0, le=1, description="Last rate as a share of the peak.")


class Training(Optimizer):
    """What each training stage can set."""

    batch_tokens: PositiveInt | None = Field(
        default=None,
        description="Tokens in an optimizer step, over all ranks; null to derive it from depth.",
    )
    precision: Literal["auto", "float32", "float8"] = Field(
        default="auto",
        description="Numbers to calculate in: auto is bfloat16 where the machine has it.",
    )
    checkpoint_minutes: PositiveFloat = Field(
        default=15, description="Time between two saved states to resume from."
    )

    @property
    def step_tokens(self) -> int:
        """``batch_tokens``, once `dial.filled` has decided it."""
        assert self.batch_tokens is not None
        return self.batch_tokens


class Base(Training):
    """Pretraining on the corpus."""

    start: str | None = Field(
        default=None,
        alias="from",
        description="A nanochat or Hugging Face folder to take model and tokenizer from, "
        "instead of training them.",
    )
    tokens: PositiveInt | None = Field(
        default=None,
        description="Tokens to train on; the corpus repeats if too short. null for 20 a parameter.",
    )


class Tuning(Training):
    """Training on conversations: mid and sft."""

    identity_epochs: float = Field(default=1.0, ge=0, description="Passes over identity.jsonl.")
    identity_least: int = Field(
        default=0,
        ge=0,
        description="Conversations about the identity at least: a small dataset is repeated.",
    )
    identity_share: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Least share of the conversations that are about the identity: of general "
        "chat, only so much is mixed in. null for no limit.",
    )
    chat: dict[str, int] = Field(
        default={},
        description="General chat mixed in: source, as for `corpus.source`, and conversations. "
        "More than it has repeats them, 0 leaves it out.",
    )
    packed: bool = Field(
        default=False,
        description="Fill rows of the whole context with conversations that do not see each "
        "other: best on GPUs. Otherwise a row holds one.",
    )
    whole_answers: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the conversations that train their answers beyond the first words. "
        "General chat does so wherever an answer is rare.",
    )
    joined: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the conversations that are joined to talks of up to six, so that a "
        "model learns to follow a change of subject.",
    )

    @field_validator("chat")
    @classmethod
    def _counts(cls, chat: dict[str, int]) -> dict[str, int]:
        if odd := [name for name, count in chat.items() if count < 0]:
            raise ValueError(f"{odd[0]}: cannot take fewer than no conversations")
        return chat


class Scale(Part):
    """A file in config/scales: how large the model is and how long it trains."""

    model: Architecture = Field(description="Shape of the model.")
    corpus: Corpus = Field(description="Text for tokenizer and pretraining.")
    base: Base = Field(description="Pretraining.")
    mid: Tuning = Field(description="First training on conversations.")
    sft: Tuning = Field(description="Last training on conversations.")
