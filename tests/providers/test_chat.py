import asyncio
import gc
import json
import logging
import socket

import pytest

from imprint.errors import AnswerLost, ProviderBusy, ProviderError
from imprint.providers import Probe, Reply, prompting
from imprint.providers.chat import TRIAL, Chat
from imprint.providers.openai import OpenAI
from imprint.settings import Provision
from providers.chat_kit import KEY, ROW, WHO, answer, canned, using
from stubs.server import Stub


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_the_key_is_in_its_header_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def task(provider: OpenAI) -> Reply:
        assert KEY not in repr(vars(provider))
        return await provider.answer(provider.request(ROW))

    with Stub() as stub:
        reply = using(OpenAI, task, base_url=stub.base("openai"))
        bodies, headers = list(stub.count.bodies), list(stub.count.headers)
    assert all(seen["Authorization"] == f"Bearer {KEY}" for seen in headers)
    assert all(KEY not in value for value in headers[0].values() if not value.startswith("Bearer"))
    assert KEY not in f"{bodies} {reply} {caplog.text}"


def test_answers_get_more_room_after_one_was_cut_off() -> None:
    async def task(provider: OpenAI) -> list[tuple[str | None, int]]:
        seen = []
        for _ in range(6):
            asked = provider.request(ROW)
            reply = await provider.answer(asked)
            seen.append((reply.flaw, asked.max_tokens // prompting.max_tokens(ROW)))
        return seen

    with Stub(script=("truncated",) * 5) as stub:
        seen = using(OpenAI, task, mode="json_schema", base_url=stub.base("openai"))
    assert [room for _, room in seen] == [1, 2, 4, 8, 16, 16]
    assert seen[-1][0] is None


def test_many_answers_cut_off_at_once_double_the_room_once() -> None:
    async def task(provider: OpenAI) -> int:
        await asyncio.gather(*(provider.answer(provider.request(ROW)) for _ in range(20)))
        return provider.room

    with Stub(script=("truncated",) * 20) as stub:
        assert using(OpenAI, task, mode="json_schema", base_url=stub.base("openai")) == 2


def test_equal_arguments_give_equal_requests() -> None:
    provider = OpenAI(WHO, Provision())
    assert provider.request(ROW, 2) == provider.request(ROW, 2)
    assert provider.request(ROW).key != provider.request(ROW, 2).key
    assert provider.request(ROW).system == prompting.system(WHO)


async def probed(provider: Chat) -> tuple[Probe | None, str | None]:
    return await provider.probe(None), provider.mode


ALL = ("json_schema", "json_object", "none")


@pytest.mark.parametrize(
    ("modes", "found", "requests"),
    [
        (ALL, "json_schema", 1),
        (("json_object", "none"), "json_object", 2),
        (("none",), "prompt", 3),
        (("json_object", "none", "ignored"), "json_object", 2),
        (("none", "ignored"), "prompt", 2),  # two answers prove that a third would come
    ],
    ids=str,
)
def test_the_probe_finds_the_best_mode_that_works(
    modes: tuple[str, ...], found: str, requests: int
) -> None:
    with Stub(schema_modes=modes) as stub:
        probe, mode = using(OpenAI, probed, base_url=stub.base("openai"))
        assert probe is not None
        assert (probe.found, mode, stub.count.received) == (found, found, requests)
        assert probe.usage["input"] > 0 and probe.usage["output"] > 0
        assert "messages" not in json.dumps(stub.count.bodies[0]["messages"])


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "prompt"])
def test_after_the_probe_answers_come_in_every_mode(mode: str) -> None:
    modes = {"json_schema": ALL, "json_object": ALL[1:], "prompt": ALL[2:]}[mode]
    with Stub(schema_modes=modes) as stub:
        reply = answer(OpenAI, stub.base("openai"), mode=None)
    assert reply.flaw is None and reply.messages


def test_what_is_known_is_not_probed_again() -> None:
    async def task(provider: OpenAI) -> list[object]:
        return [await provider.probe("json_object"), provider.mode, await provider.probe(None)]

    with Stub() as stub:
        assert using(OpenAI, task, base_url=stub.base("openai")) == [None, "json_object", None]
        assert stub.count.received == 0


def test_many_first_answers_need_one_probe() -> None:
    async def task(provider: OpenAI) -> None:
        await asyncio.gather(*(provider.answer(provider.request(ROW, n)) for n in range(1, 9)))

    with Stub() as stub:
        using(OpenAI, task, base_url=stub.base("openai"))
        trials = [seen for seen in stub.count.bodies if seen["messages"][-1]["content"] == TRIAL]
        assert (len(trials), stub.count.received) == (1, 9)


def test_a_busy_server_may_be_probed_again() -> None:
    async def task(provider: OpenAI) -> Probe | None:
        with pytest.raises(ProviderBusy):
            await provider.probe(None)
        return await provider.probe(None)

    with Stub(script=("rate-limit",)) as stub:
        assert using(OpenAI, task, base_url=stub.base("openai")) is not None


def test_the_probe_names_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with Stub() as stub, pytest.raises(ProviderError, match=r"401.*OPENAI_API_KEY"):
        answer(OpenAI, stub.base("openai"), mode=None)


def test_the_probe_names_a_model_that_is_not_there() -> None:
    with (
        Stub() as stub,
        pytest.raises(ProviderError, match=r"provider_model .'missing-1'.") as error,
    ):
        answer(OpenAI, stub.base("openai"), mode=None, provider_model="missing-1")
    assert not isinstance(error.value, ProviderBusy)


def test_the_probe_names_an_address_where_a_page_is() -> None:
    with (
        Stub(script=("html",)) as stub,
        pytest.raises(ProviderError, match="Check base_url") as error,
    ):
        answer(OpenAI, stub.base("openai"), mode=None)
    assert not isinstance(error.value, AnswerLost)


def test_the_probe_names_a_server_that_is_down() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ProviderError, match=r"cannot be reached.*server is running") as error:
        answer(OpenAI, url, mode=None)
    assert not isinstance(error.value, ProviderBusy)
    with pytest.raises(ProviderBusy):  # in the middle of a run it may come back
        answer(OpenAI, url)


def test_a_server_that_refuses_every_body_is_an_error_that_says_why() -> None:
    refusal = {"error": {"message": "No seeds here."}}
    with pytest.raises(ProviderError, match=r"answered 400 \(No seeds"):
        canned(OpenAI, 400, refusal, mode=None)


def test_a_closed_provider_leaves_nothing_open_and_can_be_used_again() -> None:
    async def task(provider: OpenAI) -> list[str | None]:
        await provider.close()  # nothing was opened yet
        flaws = []
        for _ in range(2):
            flaws.append((await provider.answer(provider.request(ROW))).flaw)
            await provider.close()
        return flaws

    with Stub() as stub:
        assert using(OpenAI, task, base_url=stub.base("openai")) == [None, None]
    gc.collect()  # what is left open warns now, and warnings are errors
