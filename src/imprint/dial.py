"""One dial: what follows from the depth of a model where the configuration says nothing.

The rules are nanochat's: heads 128 wide, 20 tokens of pretraining for each parameter, AdamW's rates
falling with the root of the width. The batch grows with the root of the tokens, from 524,288 for
the 11 billion of depth 20.
"""

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from imprint import imports
from imprint.errors import ConfigError, ImprintError
from imprint.shape import ModelConfig

if TYPE_CHECKING:
    from imprint.scale import Architecture, Training
    from imprint.settings import Settings

TOKENS_PER_PARAMETER = 20
CHARACTERS_PER_TOKEN = 4.8
"""Of English web text with 65,536 tokens of vocabulary; a little more is gathered than is read."""
REFERENCE_WIDTH = 768
EMBEDDING_LR, HEAD_LR = 0.2, 0.004
"""Of AdamW at the reference width."""
REFERENCE_BATCH, REFERENCE_TOKENS = 524_288, 11.2e9

Kind = TypeVar("Kind", bound="Training")


def shape(model: "Architecture", *, vocabulary: int | None = None) -> ModelConfig:
    """Return the shape of the model that ``model`` asks for.

    Args:
        model: Settings.
        vocabulary: That of the tokenizer, which may have found fewer tokens than asked for.

    Raises:
        ConfigError: The heads do not divide the width.
    """
    return ModelConfig(
        depth=model.depth,
        vocabulary=vocabulary or model.vocabulary,
        context=model.context,
        head_width=model.head_width or (128 if model.depth >= 12 else 64),
    )


def made(given: "Settings") -> ModelConfig:
    """Return the shape of the model that ``given`` trains, or that of the one it imports.

    Raises:
        ConfigError: The heads do not divide the width.
    """
    if given.base.start:
        with suppress(ImprintError):  # recipe.check says what is wrong there
            found = imports.shape(Path(given.base.start))
            if found.depth == given.model.depth:
                return found
    return shape(given.model)


def batch_tokens(tokens: int) -> int:
    """Return how many tokens a step should have in a pretraining of ``tokens``: a power of two.

    Example:
        >>> [batch_tokens(tokens) for tokens in (150_000, 3_700_000_000, 11_200_000_000)]
        [2048, 262144, 524288]
    """
    return int(2 ** round(math.log2(REFERENCE_BATCH * math.sqrt(tokens / REFERENCE_TOKENS))))


def filled(given: "Settings") -> "Settings":
    """Return ``given`` with everything decided that it leaves to the depth, or to an import.

    Raises:
        ConfigError: The heads do not divide the width, or a batch is less than a row.
    """
    config = made(given)
    tokens = TOKENS_PER_PARAMETER * config.n_parameters
    if given.base.tokens and not given.base.start:
        tokens = given.base.tokens
    narrow = math.sqrt(REFERENCE_WIDTH / config.width)

    def decided(stage: Kind) -> Kind:
        return stage.model_copy(
            update={
                "embedding_lr": stage.embedding_lr or round(EMBEDDING_LR * narrow, 6),
                "head_lr": stage.head_lr or round(HEAD_LR * narrow, 6),
                "batch_tokens": stage.batch_tokens or max(batch_tokens(tokens), config.context),
            }
        )

    filling = {"base": not given.base.start, "mid": given.mid.packed, "sft": given.sft.packed}
    for name in (stage for stage, filled in filling.items() if filled):
        size = getattr(given, name).batch_tokens
        if size and size < config.context:
            raise ConfigError(
                f"{name}.batch_tokens: {size} tokens are less than one row of {config.context}. "
                + ("Raise it." if given.base.start else "Raise it, or lower model.context.")
            )

    return given.model_copy(
        update={
            "model": given.model.model_copy(
                update={
                    name: getattr(config, name) for name in ("vocabulary", "context", "head_width")
                }
            ),
            "corpus": given.corpus.model_copy(
                update={
                    "characters": given.corpus.characters or round(CHARACTERS_PER_TOKEN * tokens)
                }
            ),
            "base": decided(given.base).model_copy(update={"tokens": tokens}),
            "mid": decided(given.mid),
            "sft": decided(given.sft),
        }
    )
