"""Ask a provider for one conversation per row of a plan, a few at a time."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from imprint.errors import ImprintError, ProviderBusy, ProviderError
from imprint.plan import Row
from imprint.progress import Progress
from imprint.providers import Provider, Reply

logger = logging.getLogger("imprint")

IN_FLIGHT = 16
"""Requests under way at once."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt when the provider is busy."""

PAUSE = 256
"""Answers between two looks at what else is going on, such as an interrupt."""


@dataclass(frozen=True)
class Answer:
    """A provider's reply to a row."""

    row: Row
    reply: Reply
    attempts: int
    """Requests it took, the last one included."""


async def generate(
    rows: Sequence[Row],
    provider: Provider,
    *,
    label: str = "conversations",
    in_flight: int = IN_FLIGHT,
    waits: Sequence[float] = WAITS,
) -> list[Answer]:
    """Return the provider's answer to each of ``rows``, in their order.

    Args:
        rows: What to ask for.
        provider: Whom to ask.
        label: What to call the work in the log.
        in_flight: Requests under way at once.
        waits: Seconds to wait before each new attempt when the provider is busy.

    Raises:
        ProviderError: The provider objected, stayed busy, or broke; the message names the row.
    """
    answers: dict[int, Answer] = {}
    queue = iter(enumerate(rows))

    async def work() -> None:
        # A provider that never waits, such as `template`, is served by the first worker alone:
        # no task and no switch per row.
        for place, row in queue:
            answers[place] = await _ask(provider, row, waits)
            progress.advance(amount=1)
            if len(answers) % PAUSE == 0:
                await asyncio.sleep(0)

    with Progress(label, total=len(rows), unit="conversations") as progress:
        await asyncio.gather(*(work() for _ in range(min(in_flight, len(rows)))))
    return [answers[place] for place in range(len(rows))]


async def _ask(provider: Provider, row: Row, waits: Sequence[float]) -> Answer:
    for attempt, wait in enumerate([*waits, None], start=1):
        try:
            reply = await provider.converse(row)
        except ProviderBusy as error:
            if wait is None:
                raise ProviderBusy(
                    f"provider {provider.name}: still busy after {attempt} attempts at "
                    f"conversation {row.index} ({error}). Run the same command again later."
                ) from error
            await asyncio.sleep(wait)
        except ImprintError as error:
            raise ProviderError(
                f"provider {provider.name}: conversation {row.index}: {error}"
            ) from error
        except Exception as error:
            logger.exception("provider %s broke at conversation %d", provider.name, row.index)
            raise ProviderError(
                f"provider {provider.name}: broke at conversation {row.index} "
                f"({type(error).__name__}: {error}). The log holds the traceback for its author."
            ) from error
        else:
            if not isinstance(reply, Reply):
                raise ProviderError(
                    f"provider {provider.name}: conversation {row.index}: converse() should "
                    f"return a Reply, got {type(reply).__name__}. Tell the provider's author."
                )
            return Answer(row=row, reply=reply, attempts=attempt)
    raise AssertionError("the last attempt returns or raises")
