"""Have a provider write the conversations of one plan slice, and keep those that pass the door."""

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from imprint import artifacts, door, providers, records
from imprint.errors import ProviderError
from imprint.generation import Answer, generate
from imprint.stages import plan as planning

VERSION = 1

EXAMPLES = 3
"""Rejected conversations shown in the log, per reason."""

logger = logging.getLogger("imprint")


def sidecar(shard: Path) -> Path:
    """Return where the manifest of a shard lies: it tells what was rejected, and why."""
    return shard.with_suffix(".json")


def run(*, plan: Path, provider: str, model: str | None, out: Path) -> None:
    """Write a conversation for every row of ``plan`` that the provider answers well.

    Args:
        plan: The plan file.
        provider: Name of an installed provider.
        model: Model it should use; None for its default.
        out: The shard: a line ``{"id", "messages", "meta"}`` per conversation, in plan order.
            Its manifest lies beside it under the same stem and lists what was rejected.

    Raises:
        ArtifactError: The plan is damaged.
        ConfigError: No installed provider has the name.
        ProviderError: The provider failed, or none of its answers may be trained on.
        StorageError: ``out`` may not be written.
    """
    watch = artifacts.Stopwatch()
    task = planning.read(plan)
    writer = providers.find(provider)(task.identity, model)
    answers = asyncio.run(generate(task.rows, writer, label=f"shard {task.shard}"))

    objection = door.keeper(task.identity)
    who = artifacts.digest(task.identity.model_dump())
    kept: list[dict[str, Any]] = []
    rejections: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    for answer in answers:
        reason = objection(answer.reply.messages, answer.row)
        if reason is None:
            kept.append(_record(answer, writer, who))
            continue
        rejections[name(answer.row.index)] = reason
        reasons[reason] += 1
        if reasons[reason] <= EXAMPLES:
            logger.info("rejected (%s): %s", reason, answer.reply.messages)
    cost = sum(answer.reply.cost_usd for answer in answers)
    if answers and not kept:
        raise ProviderError(
            f"provider {provider}: none of its {len(answers)} conversations for shard {task.shard} "
            f"may be trained on ({_listed(reasons)}; it cost ${cost:.2f}). The log shows "
            "examples; try another model, or correct the identity's `expect`."
        )
    records.write_lines(out, kept)
    artifacts.write_manifest(
        sidecar(out),
        stage="shards",
        version=VERSION,
        outputs=[out],
        inputs=[plan],
        settings={"provider": provider, "provider_version": writer.version, "model": writer.model},
        seed=task.seed,
        watch=watch,
        cost_usd=cost,
        planned=len(task.rows),
        accepted=len(kept),
        rejected=dict(sorted(reasons.items())),
        rejections=rejections,
    )
    logger.info("%d of %d conversations kept%s", len(kept), len(answers), _listed(reasons, ", "))


def name(index: int) -> str:
    """Return the id of the conversation at place ``index`` of the plan.

    Example:
        >>> name(7)
        '000007'
    """
    return f"{index:06d}"


def _record(answer: Answer, writer: providers.Provider, identity: str) -> dict[str, Any]:
    row = planning.as_dict(answer.row)
    request = [writer.name, writer.version, writer.model, identity, row]
    return {
        "id": name(answer.row.index),
        "messages": answer.reply.messages,
        "meta": {
            "plan": row,
            "provider": writer.name,
            "model_asked": writer.model,
            "model_answered": answer.reply.model,
            "usage": answer.reply.usage,
            "cost_usd": answer.reply.cost_usd,
            "request": artifacts.digest(request),
            "attempts": answer.attempts,
        },
    }


def _listed(reasons: Counter[str], before: str = "") -> str:
    told = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    return before + told if told else ""
