import asyncio
import logging
from typing import Any, ClassVar

import pytest

from imprint.errors import ConfigError, ImprintError, ProviderBusy, ProviderError
from imprint.generation import IN_FLIGHT, WAITS, generate
from imprint.identity import Identity
from imprint.plan import Row
from imprint.providers import Reply


def rows(count: int) -> list[Row]:
    return [
        Row(
            index=100 + place,
            strategy="direct",
            facts=(),
            subject=None,
            turns=1,
            persona="a child",
            register="plain",
            typos=False,
            seed=place,
        )
        for place in range(count)
    ]


class Scripted:
    """Does what the test says at each request; counts how many are under way."""

    name: ClassVar[str] = "scripted"
    version: ClassVar[int] = 1
    key_variable: ClassVar[str | None] = None
    conversations: ClassVar[int] = 10
    shard_size: ClassVar[int] = 10

    def __init__(self, identity: Identity | None = None, model: str | None = None) -> None:
        self.model = model or "none"
        self.faults: dict[int, list[Exception]] = {}
        self.wait = 0.0
        self.now = self.most = self.asked = 0

    async def converse(self, row: Row) -> Reply:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.wait * (200 - row.index))
            if self.faults.get(row.index):
                raise self.faults[row.index].pop(0)
            return Reply([{"role": "user", "content": str(row.index)}], self.model)
        finally:
            self.now -= 1


def run(provider: Any, count: int, **options: Any) -> list[Any]:
    return asyncio.run(generate(rows(count), provider, **options))


def test_answers_come_in_the_order_of_the_rows_whatever_is_ready_first() -> None:
    provider = Scripted()
    provider.wait = 0.0001
    answers = run(provider, 30)
    assert [answer.row.index for answer in answers] == list(range(100, 130))
    assert [answer.reply.messages[0]["content"] for answer in answers] == [
        str(index) for index in range(100, 130)
    ]


def test_requests_under_way_are_bounded_and_the_bound_is_used() -> None:
    provider = Scripted()
    provider.wait = 0.0001
    run(provider, 3 * IN_FLIGHT)
    assert provider.most == IN_FLIGHT
    run(provider, 9, in_flight=2)


def test_nothing_to_ask_is_no_answer() -> None:
    assert run(Scripted(), 0) == []


def test_a_busy_provider_is_asked_again_and_the_attempts_are_counted() -> None:
    provider = Scripted()
    provider.faults[102] = [ProviderBusy("429"), ProviderBusy("503")]
    answers = run(provider, 5, waits=(0, 0, 0))
    assert [answer.attempts for answer in answers] == [1, 1, 3, 1, 1]


def test_a_provider_that_stays_busy_is_given_up_with_the_row_named() -> None:
    provider = Scripted()
    provider.faults[102] = [ProviderBusy("429: slow down") for _ in range(9)]
    with pytest.raises(ProviderBusy, match=r"3 attempts at conversation 102 \(429: slow down\)"):
        run(provider, 5, waits=(0, 0), in_flight=1)
    assert provider.asked == 2 + 3


def test_waits_grow() -> None:
    assert list(WAITS) == sorted(set(WAITS))


@pytest.mark.parametrize("fault", [ProviderError("402: no money"), ConfigError("no such model")])
def test_an_objection_is_not_asked_again_and_names_provider_and_row(fault: ImprintError) -> None:
    provider = Scripted()
    provider.faults[101] = [fault]
    with pytest.raises(ProviderError, match=f"provider scripted: conversation 101: {fault}"):
        run(provider, 5, in_flight=1)
    assert provider.asked == 2


def test_a_fault_in_a_provider_is_told_apart_and_its_traceback_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    provider = Scripted()
    provider.faults[101] = [KeyError("choices")]
    with pytest.raises(ProviderError, match=r"broke at conversation 101 \(KeyError: 'choices'\)"):
        run(provider, 5)
    assert "Traceback" in caplog.text


def test_a_reply_of_the_wrong_type_is_the_authors_fault() -> None:
    class Wrong(Scripted):
        async def converse(self, row: Row) -> Reply:
            return "Hello!"  # type: ignore[return-value]

    with pytest.raises(ProviderError, match="should return a Reply, got str"):
        run(Wrong(), 2)


def test_progress_tells_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run(Scripted(), 4, label="shard 0007")
    assert "shard 0007 4/4, " in caplog.text
    assert "conversations/s, 0 s left" in caplog.text
