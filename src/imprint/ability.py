"""What a model can do beside knowing who it is: held-out plain text, and held-out chat.

An identity is worth little if it costs what the model knew before. These two figures of base, mid
and sft, on the same held-out text, tell.
"""

import math
from pathlib import Path

import numpy as np

from imprint.dataset.chats import Chats
from imprint.dataset.documents import Documents
from imprint.dataset.mixture import Share
from imprint.dataset.store import Store
from imprint.errors import ConfigError
from imprint.model import Model
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.loop import evaluate

JUDGED_TOKENS = 1_000_000
"""Most tokens that a loss is measured on."""
BATCH_TOKENS = 16_384


def text(model: Model, held: Store, *, ranks: Ranks) -> dict[str, float]:
    """Return the mean loss of ``model`` on held-out text: nats a token, and bits a byte."""
    data = Documents(
        held, context=model.config.context, batch_tokens=BATCH_TOKENS, tokens=None, seed=0
    )
    data.steps = min(data.steps, max(1, JUDGED_TOKENS // BATCH_TOKENS))
    nats = evaluate(model, data, ranks=ranks)
    return {
        "val_loss": round(nats, 5),
        "val_bpb": round(nats / math.log(2) * held.tokens / held.text_bytes, 5),
    }


def chat(model: Model, held: Store, *, tokenizer: Tokenizer, ranks: Ranks) -> float | None:
    """Return the mean loss of ``model`` on the answers of held-out chat, in nats a token.

    None where nothing was held out, or nothing of it fits into the model's context.
    """
    try:
        data = Chats(
            [Share(held, np.arange(len(held)))],
            tokenizer=tokenizer,
            context=model.config.context,
            batch_tokens=BATCH_TOKENS,
            seed=0,
        )
    except ConfigError:
        return None
    return round(evaluate(model, data, ranks=ranks), 5)


def measured(
    model: Model, *, tokenizer: Tokenizer, corpus: Path | None, chats: Path | None
) -> dict[str, float]:
    """Return ``val_bpb`` and ``chat_loss`` of ``model``, each where there is something to judge on.

    Args:
        model: Of any stage.
        tokenizer: Its own.
        corpus: Index of the corpus as tokens; None if there is none.
        chats: Index of general chat as tokens; None if there is none.
    """
    found = {}
    if corpus is not None:
        held = Store.open(corpus, "validation", tokenizer=tokenizer.digest)
        found["val_bpb"] = text(model, held, ranks=Ranks(0, 1, model.device))["val_bpb"]
    if chats is not None:
        held = Store.open(chats, "validation", tokenizer=tokenizer.digest)
        loss = chat(model, held, tokenizer=tokenizer, ranks=Ranks(0, 1, model.device))
        if loss is not None:
            found["chat_loss"] = loss
    return found
