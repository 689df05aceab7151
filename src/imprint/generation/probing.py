"""The first request: it finds out whether and how a provider's server can be asked."""

import asyncio

from imprint.errors import AnswerLost, ProviderBusy
from imprint.generation import outcomes, pacing
from imprint.generation.journal import Journal
from imprint.generation.prices import Tariff
from imprint.providers import Provider
from imprint.settings import Provision

TOKENS = (1000, 5000)
"""Most that a probe takes, in and out: a few short questions."""

TRIES = 5
"""Probes that may end without an answer."""

POLL_S = 0.05
"""Time between two looks at what another worker's probe finds out."""


async def probe(
    provider: Provider, *, journal: Journal, provision: Provision, tariff: Tariff
) -> None:
    """Have ``provider`` find out what its server can do, once for all workers and runs.

    A probe is reserved and paid for as any request is, so that the budget holds.

    Raises:
        ProviderError: Key, model or address are wrong, the server stays busy, or the budget is
            used up.
    """
    if type(provider).probe is Provider.probe:
        return  # it sends nothing
    name = f"probe of {provision.base_url or provider.name} {provider.model}"
    for tries in range(1, TRIES + 1):
        known = await _reserved(name, journal, provision, tariff)
        if known is not None:
            await provider.probe(known)
            return
        found, lost, wait = None, None, None
        try:
            found = await provider.probe(None)
            return
        except asyncio.CancelledError:
            lost = "the run was interrupted"
            raise
        except (AnswerLost, ProviderBusy) as error:
            if isinstance(error, ProviderBusy):
                wait = error.wait_s
            else:
                lost = str(error)
            if tries == TRIES:
                raise outcomes.unanswered(provider.name, "the probe", tries, error) from None
        finally:
            with journal.transaction():
                if lost is None:
                    journal.release(name)
                else:
                    journal.lose(name, lost)
                if found is not None:
                    journal.note(name, found.found)
                    journal.pay(tariff.cost(found))
        await asyncio.sleep(pacing.backoff_s(tries, wait))


async def _reserved(
    name: str, journal: Journal, provision: Provision, tariff: Tariff
) -> str | None:
    """Return what a probe found before; None once the next one is reserved."""
    most, budget = tariff.usd(*TOKENS), provision.budget_usd
    while True:
        with journal.transaction():
            known: str | None = journal.noted(name)
            if known is not None:
                return known
            verdict = journal.reserve(name, most_usd=most, budget_usd=budget)
            if verdict == "go":
                return None
            if verdict == "dear" and journal.money.flying == journal.money.batched:
                raise outcomes.broke(journal.money, budget_usd=budget, next_usd=most)
        journal.bury()
        await asyncio.sleep(POLL_S)
