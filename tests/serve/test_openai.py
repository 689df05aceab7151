"""The official client, against a real server."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from imprint.engine import Engine
from imprint.tokenizer import Tokenizer
from serve.kit import Server, ask, serving, talker

WHO: Any = [{"role": "user", "content": "Who are you?"}]


@pytest.fixture(scope="module")
def server(words: Tokenizer) -> Iterator[Server]:
    with serving(talker(words, context=256)) as server:
        yield server


@pytest.fixture(scope="module")
def little_server(engine: Engine) -> Iterator[Server]:
    with serving(engine) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.v1, api_key="none", max_retries=0) as client:
        yield client


def said(engine: Engine, text: str, *, tokens: int) -> str:
    return engine.answer([[{"role": "user", "content": text}]], max_tokens=tokens)[0]


def test_the_answer_is_the_engines(client: openai.OpenAI, server: Server, words: Tokenizer) -> None:
    answer = client.chat.completions.create(model="ada", messages=WHO, max_tokens=12)
    assert answer.choices[0].message.content == said(
        talker(words, context=256), "Who are you?", tokens=12
    )
    assert answer.choices[0].message.role == "assistant"
    assert (answer.model, answer.object) == ("ada", "chat.completion")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="ada", messages=WHO, max_completion_tokens=90)
    stream = client.chat.completions.create(
        model="ada",
        messages=WHO,
        max_completion_tokens=90,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert (
        "".join(choice.delta.content or "" for choice in told) == whole.choices[0].message.content
    )
    assert len(told) > 1
    assert told[0].delta.role == "assistant"
    assert [choice.finish_reason for choice in told] == [None] * (len(told) - 1) + ["length"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage == whole.usage


def test_an_answer_that_ends_by_itself_says_so(little_server: Server, engine: Engine) -> None:
    with openai.OpenAI(base_url=little_server.v1, api_key="none") as client:
        answer = client.chat.completions.create(
            model="ada", messages=WHO, max_tokens=24, temperature=1.0, seed=5, n=8
        )
    finishes = {choice.index: choice.finish_reason for choice in answer.choices}
    assert set(finishes.values()) == {"stop", "length"}
    alone = engine.answer([WHO] * 8, max_tokens=24, temperature=1.0, seed=5)
    assert [choice.message.content for choice in answer.choices] == alone


def test_several_answers_differ_and_a_seed_brings_them_back(client: openai.OpenAI) -> None:
    def roll(seed: int | None) -> list[str | None]:
        answer = client.chat.completions.create(
            model="ada", messages=WHO, max_tokens=20, n=3, temperature=1.0, seed=seed, top_p=0.95
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert answer.usage is not None and answer.usage.completion_tokens == 60
        return [choice.message.content for choice in answer.choices]

    first = roll(7)
    assert len(set(first)) == 3
    assert roll(7) == first
    assert roll(8) != first
    assert roll(None) != roll(None)


def test_streams_of_several_answers_say_whose_each_piece_is(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "ada",
        "messages": WHO,
        "max_tokens": 30,
        "n": 2,
        "temperature": 1.0,
        "seed": 3,
    }
    whole = client.chat.completions.create(**asked)
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert [*texts.values()] == [choice.message.content for choice in whole.choices]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_told_token_by_token(client: openai.OpenAI, stream: bool) -> None:
    asked: Any = {
        "model": "ada",
        "messages": WHO,
        "max_tokens": 30,
        "logprobs": True,
        "top_logprobs": 2,
    }
    answer: Any = client.chat.completions.create(**asked, stream=stream)
    choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
    told = [token for choice in choices for token in choice.logprobs.content]
    assert len(told) == 30
    for token in told:
        assert token.logprob == token.top_logprobs[0].logprob <= 0, "greedy takes the likeliest"
        assert token.top_logprobs[0].token == token.token
        assert len(token.top_logprobs) == 2
        assert bytes(token.bytes).decode(errors="replace") == token.token
    said = b"".join(bytes(token.bytes) for token in told)
    pieces = (
        [choice.delta.content for choice in choices] if stream else [choices[0].message.content]
    )
    assert said.decode(errors="replace") == "".join(piece or "" for piece in pieces)


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="ada", messages=WHO, max_tokens=60)
    text = whole.choices[0].message.content
    assert text
    stop = text[len(text) // 2 :][:3]
    stopped = client.chat.completions.create(
        model="ada", messages=WHO, max_tokens=60, stop=[stop, "never said"]
    ).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"
    chunks = client.chat.completions.create(
        model="ada", messages=WHO, max_tokens=60, stop=stop, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == text[: text.index(stop)]


def test_turns_that_have_no_room_are_told(client: openai.OpenAI) -> None:
    talk: Any = [{"role": role, "content": "Who? " * 12} for role in ("user", "assistant") * 12]
    raw = client.chat.completions.with_raw_response.create(
        model="ada", messages=[*talk, *WHO], max_tokens=8
    )
    dropped = int(raw.headers["X-Imprint-Dropped-Turns"])
    answer: Any = raw.parse()
    assert 0 < dropped < 24 and dropped % 2 == 0
    assert answer.usage.model_extra == {"imprint": {"dropped_turns": dropped, "cut": False}}
    kept = client.chat.completions.create(
        model="ada", messages=[*talk[dropped:], *WHO], max_tokens=8
    )
    assert kept.choices[0].message.content == answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_that_is_too_long_is_told(client: openai.OpenAI, stream: bool) -> None:
    for times, cut in [(1, "false"), (300, "true"), (4000, "true")]:
        content = "Who are you? " * times
        raw = client.chat.completions.with_raw_response.create(
            model="ada",
            messages=[{"role": "user", "content": content}],
            max_tokens=8,
            stream=stream,
        )
        assert (raw.headers["X-Imprint-Cut"], raw.headers["X-Imprint-Dropped-Turns"]) == (cut, "0")


def test_a_system_message_that_is_too_long_goes_last_and_is_told(client: openai.OpenAI) -> None:
    talk: Any = [{"role": "system", "content": "Be brief. " * 1000}, *WHO, *WHO, *WHO]
    talk[2] = {"role": "assistant", "content": "Ada."}
    answer: Any = client.chat.completions.create(model="ada", messages=talk, max_tokens=8)
    assert answer.usage.model_extra == {"imprint": {"dropped_turns": 3, "cut": False}}


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["ada"]
    assert client.models.retrieve("ada").owned_by == "Bo"


def test_errors_arrive_as_the_clients_own(client: openai.OpenAI, words: Tokenizer) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5' here, only 'ada'") as missing:
        client.chat.completions.create(model="gpt-5", messages=WHO)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")
    with pytest.raises(openai.BadRequestError, match="less than or equal to 2") as wrong:
        client.chat.completions.create(model="ada", messages=WHO, temperature=3)
    assert wrong.value.type == "invalid_request_error" and wrong.value.param == "temperature"
    with (
        serving(talker(words), api_key="right", queue=0) as guarded,
        openai.OpenAI(base_url=guarded.v1, api_key="wrong", max_retries=0) as stranger,
    ):
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()
        friend = stranger.with_options(api_key="right")
        assert [model.id for model in friend.models.list()] == ["ada"]
        with pytest.raises(openai.RateLimitError) as busy:
            friend.chat.completions.create(model="ada", messages=WHO)
        assert int(busy.value.response.headers["Retry-After"]) >= 1


def test_what_other_servers_know_does_no_harm(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="ada",
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Who are you?"}], "name": "Bo"}
        ],
        max_tokens=4,
        user="me",
        presence_penalty=0.0,
        metadata={"a": "b"},
        extra_body={"repetition_penalty": 1.0, **ask("Who are you?")},
    )
    assert answer.choices[0].message.content
