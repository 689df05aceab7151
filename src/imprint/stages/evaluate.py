"""Ask a checkpoint the held-out questions, mark what it answers, and see what else it can do."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import ability, exam
from imprint.artifacts import digest, read_json, sha256, write_json
from imprint.engine import Engine
from imprint.errors import ArtifactError
from imprint.identity import Identity, load
from imprint.scoring import score
from imprint.tokenizer import Tokenizer

VERSION = 3

OPENER = 16
"""Tokens of an answer beside what it states: "Sorry, I do not know. Nobody told me." has 12."""

logger = logging.getLogger("imprint")


def run(
    *,
    checkpoint: Path,
    tokenizer: Path,
    identity: Path,
    manifest: Path,
    corpus: Path | None,
    chat: Path | None,
    out: Path,
    settings: Mapping[str, Any],
) -> None:
    """Write the evaluation of ``checkpoint`` to ``out``; equal inputs give equal bytes.

    The answers are greedy and see no system prompt. The time it took goes to the log, so that the
    file is the same on every run.

    Args:
        checkpoint: The weights; the name of the stage is the name of ``out`` without its ending.
        tokenizer: The tokenizer they were trained with.
        identity: Who the model should be.
        manifest: Manifest of the training stage, whose validation loss is passed on.
        corpus: Plain text as tokens, for ``val_bpb``: bits a byte of what was held out; None to
            leave it out.
        chat: General chat as tokens, for ``chat_loss``: nats a token; None to leave it out.
        out: The evaluation, JSON.
        settings: ``per_suite``, questions in each suite; ``answer_tokens``, the least room for
            an answer, see `room`; ``seed``, which chooses the questions.

    Raises:
        ArtifactError: The checkpoint is missing, damaged, or was trained with another tokenizer.
        IdentityError: The identity file is wrong.
    """
    whom = load(identity)
    questions = exam.questions(whom, per_suite=settings["per_suite"], seed=settings["seed"])
    if not questions:
        raise ArtifactError(f"{identity}: no held-out question can be made from it.")
    engine = Engine.load(checkpoint, tokenizer=tokenizer)
    longest = room(whom, engine.tokenizer, least=settings["answer_tokens"])
    answers = engine.answer([question.messages for question in questions], max_tokens=longest)
    scored = score(questions, answers, whom)
    known = read_json(manifest)
    able = ability.measured(engine.model, tokenizer=engine.tokenizer, corpus=corpus, chats=chat)
    logger.info(
        "%s: %s of %d identity questions right, rival rate %s, bleed rate %s",
        out.stem,
        scored["identity"]["accuracy"],
        scored["n"],
        scored["rival_rate"],
        scored["bleed_rate"],
    )
    write_json(
        out,
        {
            "stage": out.stem,
            **{key: scored[key] for key in scored if key != "answers"},
            **({"val_loss": known["val_loss"]} if "val_loss" in known else {}),
            **able,
            "about": {"name": whom.name, "creator": whom.creator, "file": str(identity)},
            "version": VERSION,
            "settings": dict(settings),
            "inputs": {
                "checkpoint": sha256(checkpoint),
                "tokenizer": sha256(tokenizer),
                "identity": digest(whom.model_dump()),
            },
            "answers": scored["answers"],
        },
    )


def room(identity: Identity, tokenizer: Tokenizer, *, least: int) -> int:
    """Return how many tokens an answer may have: ``least``, or what the longest statement takes.

    An answer that is cut off before the words it is marked by would be wrong, though it is known.
    """
    note = identity.style.language_note
    said = [
        f"{text} {note}" for text in (identity.introduction, *(f.statement for f in identity.facts))
    ]
    return max(least, OPENER + max(map(len, tokenizer.encode_batch(said))))
