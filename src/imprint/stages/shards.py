"""Have a provider write the conversations of one plan slice, and keep those that pass the door."""

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import uvloop

from imprint import artifacts, door, providers, records
from imprint.errors import ProviderError
from imprint.generation.batching import asker
from imprint.generation.harvest import EXAMPLES, Objection
from imprint.generation.journal import Journal
from imprint.generation.live import Live
from imprint.generation.outcomes import Conclusion
from imprint.generation.prices import tariff
from imprint.progress import Progress
from imprint.providers import Provider, Reply
from imprint.settings import Provision
from imprint.stages import plan as planning

VERSION = 2

logger = logging.getLogger("imprint")


SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What ends a run early, once everything under way has had a little time."""

Found = tuple[Conclusion, Reply]
"""What became of a row, and the last answer to it."""


def sidecar(shard: Path) -> Path:
    """Return where the manifest of a shard lies: it tells what was rejected, and why."""
    return shard.with_suffix(".json")


def run(
    *,
    plan: Path,
    provision: Provision,
    out: Path,
    journal: Path,
    terminal: TextIO | None = None,
) -> None:
    """Write a conversation for every row of ``plan`` that the provider answers well.

    Args:
        plan: The plan file.
        provision: Who writes the conversations, and on what terms.
        out: The shard: a line ``{"id", "messages", "meta"}`` per conversation, in plan order.
            Its manifest lies beside it under the same stem and lists what was rejected.
        journal: Where every answer that is paid for is kept, over all shards and runs.
        terminal: Where the progress of the whole run is shown; None if nobody watches.

    Raises:
        ArtifactError: The plan is damaged.
        ConfigError: No installed provider has the name, its key or its price is not known, or
            its terms are not acknowledged.
        ProviderError: The provider failed, or none of its answers may be trained on.
        StorageError: ``out`` may not be written.
    """
    watch = artifacts.Stopwatch()
    task = planning.read(plan)
    kind = providers.find(provision.provider)
    writer = kind(task.identity, provision)
    objection = door.keeper(task.identity)
    if kind.instant:
        answers = asyncio.run(_at_once(task, writer, objection))
    else:
        providers.acknowledged(writer, provision)
        with Journal(journal, label=f"shard {task.shard}") as book:
            answers = uvloop.run(_paid(task, writer, objection, provision, book, terminal))

    kept = [_record(end, reply, writer) for end, reply in answers if end.reason is None]
    rejections = {name(end.row.index): end.reason for end, _ in answers if end.reason}
    reasons = Counter(rejections.values())
    cost = sum(end.cost_usd for end, _ in answers)
    if answers and not kept:
        raise ProviderError(
            f"provider {writer.name}: none of its {len(answers)} conversations for shard "
            f"{task.shard} may be trained on ({_listed(reasons)}; it cost ${cost:.2f}). The log "
            "shows examples; try another model, or correct the identity's `expect`."
        )
    records.write_lines(out, kept)
    artifacts.write_manifest(
        sidecar(out),
        stage="shards",
        version=VERSION,
        outputs=[out],
        inputs=[plan],
        settings={"provider": writer.name, "provider_version": kind.version, "model": writer.model},
        seed=task.seed,
        watch=watch,
        cost_usd=cost,
        acknowledged_terms=writer.terms,
        planned=len(task.rows),
        accepted=len(kept),
        attempts=sum(end.asks for end, _ in answers),
        models=_models(answers),
        rejected=dict(sorted(reasons.items())),
        rejections=rejections,
    )
    logger.info("%d of %d conversations kept%s", len(kept), len(answers), _listed(reasons, ", "))


async def _at_once(task: planning.Slice, writer: Provider, objection: Objection) -> list[Found]:
    found: list[Found] = []
    shown: Counter[str] = Counter()
    label = f"shard {task.shard}"
    with Progress(label, total=len(task.rows), unit="conversations") as progress:
        for row in task.rows:
            request = writer.request(row)
            reply = await writer.answer(request)
            reason = reply.flaw or objection(reply.messages, row)
            found.append((Conclusion(row, 1, 0.0, request.key, reason), reply))
            progress.advance(amount=1)
            if reason is not None:
                shown[reason] += 1
                if shown[reason] <= EXAMPLES:
                    logger.info("rejected (%s): %s", reason, reply.messages)
    return found


async def _paid(
    task: planning.Slice,
    writer: Provider,
    objection: Objection,
    provision: Provision,
    journal: Journal,
    terminal: TextIO | None,
) -> list[Found]:
    live = Live(journal, budget_usd=provision.budget_usd, terminal=terminal)
    generation = asker(task.rows, writer, provision, journal)(
        writer,
        journal=journal,
        provision=provision,
        tariff=tariff(provision, type(writer), writer.model),
        objection=objection,
        watch=live,
    )
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, generation.interrupt)
    try:
        conclusions = await generation.run(task.rows)
    finally:
        for number in SIGNALS:  # uvloop leaves them behind
            loop.remove_signal_handler(number)
        live.end()
        await writer.close()
    found = ((end, journal.find(end.key)) for end in conclusions)
    return [(end, kept.reply) for end, kept in found if kept is not None]


def bill(shards: Iterable[Path]) -> dict[str, Any]:
    """Return what ``shards`` took together, from their manifests: answers, USD, and by model."""
    total: dict[str, Any] = {"answers": 0, "cost_usd": 0.0, "models": {}}
    for shard in shards:
        found = artifacts.read_json(sidecar(shard))
        total["answers"] += found.get("attempts", 0)
        total["cost_usd"] += found.get("cost_usd", 0.0)
        for model, counts in found.get("models", {}).items():
            summed = total["models"].setdefault(model, dict.fromkeys(counts, 0))
            total["models"][model] = {key: summed[key] + counts[key] for key in counts}
    return total


def name(index: int) -> str:
    """Return the id of the conversation at place ``index`` of the plan.

    Example:
        >>> name(7)
        '000007'
    """
    return f"{index:06d}"


def _record(end: Conclusion, reply: Reply, writer: Provider) -> dict[str, Any]:
    return {
        "id": name(end.row.index),
        "messages": reply.messages,
        "meta": {
            "plan": planning.as_dict(end.row),
            "provider": writer.name,
            "model_asked": writer.model,
            "model_answered": reply.model,
            "usage": reply.usage,
            "cost_usd": end.cost_usd,
            "request": end.key,
            "attempts": end.asks,
        },
    }


def _models(answers: list[Found]) -> dict[str, dict[str, float]]:
    """Return what each model that answered last did: conversations, tokens, USD."""
    models: dict[str, dict[str, float]] = {}
    for end, reply in answers:
        if end.reason is None:
            counts = models.setdefault(
                reply.model, {"conversations": 0, "input": 0, "output": 0, "cost_usd": 0.0}
            )
            counts["conversations"] += 1
            counts["input"] += reply.usage.get("input", 0)
            counts["output"] += reply.usage.get("output", 0)
            counts["cost_usd"] += end.cost_usd
    return models


def _listed(reasons: Counter[str], before: str = "") -> str:
    told = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    return before + told if told else ""
