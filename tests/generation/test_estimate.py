import math
from pathlib import Path
from typing import Any

import pytest

from dataset_kit import echo, write_identity
from generation.kit import money
from imprint import plan, providers
from imprint.errors import ConfigError
from imprint.generation.estimate import Estimate, announced, before, estimate
from imprint.generation.journal import Journal
from imprint.identity import Identity, load
from imprint.providers import Reply
from imprint.settings import Price, Provision, Settings, resolve

__all__ = ["echo"]  # a fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def who(tmp_path: Path, echo: Path) -> Identity:
    return load(write_identity(tmp_path / "identity.yaml"))


def expected(who: Identity, journal: Path, count: int = 40, **terms: Any) -> Estimate:
    provision = Provision(provider="echo", **terms)
    return estimate(who, provision, seed=1, ranges=[(0, 10), (10, count)], journal=journal)


def answer(who: Identity, journal: Path, count: int, **fields: Any) -> None:
    """Put answers to the first rows of the plan into a journal."""
    writer = providers.find("echo")(who, Provision())
    with Journal(journal) as book, book.transaction():
        for row in plan.rows(who, seed=1, start=0, stop=count):
            reply = Reply([], "echo-1", **fields)
            book.keep(writer.request(row), reply, cost_usd=0.01, seconds=2.0)


def test_a_small_plan_is_expected_to_take_what_it_takes(who: Identity, tmp_path: Path) -> None:
    found = expected(who, tmp_path / "journal.sqlite", in_flight=10)
    writer = providers.find("echo")(who, Provision())
    asked = [writer.request(row) for row in plan.rows(who, seed=1, start=0, stop=40)]
    prompt = sum(len(request.system) + len(request.user) for request in asked)
    assert (found.conversations, found.known, found.requests) == (40, 0, 44)
    assert found.input_tokens == math.ceil(1.1 * prompt / 4)
    assert found.output_tokens == math.ceil(1.1 * 40 * 130)
    assert found.usd == pytest.approx((found.input_tokens + found.output_tokens) / 1e6, rel=1e-3)
    assert found.seconds == pytest.approx(1.1 * 4.0 * 40 / 10)
    assert found.source == "echo"
    assert not (tmp_path / "journal.sqlite").exists()
    found.check()
    assert found.told() == (
        f"40 conversations from echo-1: about 44 requests, 0.00 million tokens in and 0.01 out, "
        f"${found.usd:.2f} (price: echo), 17.6 s. Spent so far: $0.00 of $5.00."
    )


def test_batches_take_up_to_a_day_and_half_the_money(
    who: Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "some-key")

    def found(**terms: Any) -> Estimate:
        provision = Provision(provider="openrouter", **terms)
        journal = tmp_path / "journal.sqlite"
        return estimate(who, provision, seed=1, ranges=[(0, 40)], journal=journal)

    assert ", within a day. Spent so far" in found(batch=True).told()
    assert found(batch=True).usd == pytest.approx(found().usd / 2)


def test_what_the_journal_has_costs_nothing(who: Identity, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    answer(who, journal, 15)
    found = expected(who, journal)
    assert (found.conversations, found.known) == (25, 15)
    assert found.spent_usd == pytest.approx(0.15)
    assert "(15 more are in the journal)" in found.told()
    answer(who, journal, 40)
    whole = expected(who, journal, budget_usd=0.0)
    whole.check()  # though more is spent than may be
    assert (whole.usd, whole.conversations) == (0, 0)
    assert whole.told() == "All 40 conversations are in the journal: nothing to pay."


def test_experience_replaces_the_usual_figures(who: Identity, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    answer(who, journal, 30, usage={"input": 10, "output": 1000})
    found = expected(who, journal, 130)
    assert found.requests == 100
    assert found.output_tokens == 100 * 1000
    assert found.seconds == pytest.approx(2.0 * 100 / 64)


def test_a_budget_that_will_not_last_is_told_with_what_it_buys(
    who: Identity, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.sqlite"
    answer(who, journal, 10)
    terms: dict[str, Any] = {"price": Price(input=1000.0, output=1000.0)}
    usd = expected(who, journal, 110, **terms).usd
    short = expected(who, journal, 110, budget_usd=0.1 + usd / 2, **terms)
    assert short.affordable in (49, 50)
    with pytest.raises(ConfigError) as caught:
        short.check()
    assert str(caught.value) == (
        f"budget_usd: 100 conversations will cost about ${usd:.2f}, and $0.10 of "
        f"${0.1 + usd / 2:.2f} is spent already. The rest buys about {short.affordable}. Set "
        f"budget_usd to at least {(0.1 + usd) * 1.1:.2f}, or `conversations` lower."
    )
    expected(who, journal, 110, budget_usd=0.11 + usd, **terms).check()


def test_a_free_server_is_affordable_with_any_budget() -> None:
    fields = (
        "known",
        "requests",
        "input_tokens",
        "output_tokens",
        "usd",
        "spent_usd",
        "budget_usd",
    )
    nothing: dict[str, Any] = dict.fromkeys(fields, 0)
    free = Estimate("m", "a server of your own", 7, **nothing, seconds=1, batch=False)
    free.check()
    assert free.affordable == 7


def settings(**given: Any) -> Settings:
    identity = {"identity": str(ROOT / "config" / "identities" / "smarternano.yaml")}
    return resolve({**identity, **given}, root=ROOT)


def test_terms_that_are_not_acknowledged_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "stub-key")
    given = {"provider": "openai", "conversations": 20, "shard_size": 10}
    journal = tmp_path / "journal.sqlite"
    with pytest.raises(ConfigError, match=r"acknowledge_terms: OpenAI's terms .* add openai to"):
        before(settings(**given), ["0000"], journal)
    found = before(settings(**given, acknowledge_terms=["openai"]), ["0001"], journal)
    assert found and found.conversations == 10


def test_a_free_and_instant_provider_needs_no_forecast(tmp_path: Path) -> None:
    assert announced(settings(provider="template"), ["0000"], tmp_path / "j.sqlite") is None
    assert not (tmp_path / "j.sqlite").exists()


def test_a_run_that_is_announced_begins_to_count(echo: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    chosen = settings(provider="echo", conversations=120, shard_size=50)
    told = announced(chosen, ["0000", "0002"], journal)
    assert told and told.startswith("70 conversations from echo-1: about 77 requests")
    with Journal(journal) as book:
        assert book.progress().total == 70
    assert money(journal)["spent"] == 0


def test_a_run_that_cannot_be_paid_does_not_begin(echo: Path, tmp_path: Path) -> None:
    chosen = settings(provider="echo", conversations=120, budget_usd=0.0)
    with pytest.raises(ConfigError, match=r"^budget_usd: 50 conversations will cost"):
        announced(chosen, ["0000"], tmp_path / "journal.sqlite")
    assert not (tmp_path / "journal.sqlite").exists()
