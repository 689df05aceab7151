"""From a checked request to the bytes of its answer."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse

from imprint.decoding import Chance
from imprint.engine import Engine, Prompt
from imprint.serve import Settings, room
from imprint.serve.metrics import Metrics
from imprint.serve.protocol import ChatRequest, Refused, event, usage
from imprint.serve.service import Broken, Busy, HungUp, Service, Ticket
from imprint.tokenizer import Tokenizer
from imprint.voice import Voice


class Asked:
    """One request on its way through the server."""

    prompt: Prompt
    ticket: Ticket

    def __init__(self, request: ChatRequest, *, model: str) -> None:
        """Begin the clock."""
        self.request, self.model = request, model
        self.arrived = time.monotonic()
        self.head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time())}

    def check(self, settings: Settings) -> None:
        """Do nothing if the request keeps to the limits.

        Raises:
            Refused: It does not.
        """
        asked = self.request
        if asked.model is not None and asked.model != self.model:
            said = f"no model {asked.model!r} here, only {self.model!r}"
            raise Refused(404, said, param="model", code="model_not_found")
        if len(asked.messages) > settings.turns:
            raise Refused(400, f"more than {settings.turns} messages", param="messages")
        if (asked.n or 1) > settings.choices:
            raise Refused(400, f"n: at most {settings.choices} answers", param="n")

    def prepare(self, engine: Engine, settings: Settings, *, characters: int) -> None:
        """Cut the conversation into tokens, and make a request of the engine for each answer.

        Args:
            engine: Whose model answers.
            settings: Limits.
            characters: Of the conversation, more than these never fit.
        """
        asked, tokenizer = self.request, engine.tokenizer
        tokens = asked.max_completion_tokens or asked.max_tokens or settings.max_tokens
        conversation = asked.conversation()
        left = room.cut(conversation, characters=characters)
        [prompt] = engine.prompts([left], max_tokens=tokens)
        self.prompt = prompt._replace(dropped=prompt.dropped + len(conversation) - len(left))
        seed = secrets.randbits(62) if asked.seed is None else asked.seed
        self.tokenizer = tokenizer
        self.pairs = []
        for place in range(asked.n or 1):
            request = engine.request(
                self.prompt,
                max_tokens=tokens,
                temperature=asked.temperature or 0.0,
                top_k=asked.top_k,
                top_p=1.0 if asked.top_p is None else asked.top_p,
                seed=seed,
                place=place,
                top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
            )
            self.pairs.append((request, Voice(request, tokenizer, stops=asked.stops)))

    @property
    def headers(self) -> dict[str, str]:
        """What is told before the answer."""
        return {
            "X-Imprint-Dropped-Turns": str(self.prompt.dropped),
            "X-Imprint-Cut": "true" if self.prompt.cut else "false",
            "Cache-Control": "no-store",
        }

    def usage(self) -> dict[str, Any]:
        """Return what was read and said."""
        said = sum(len(request.said) for request, _ in self.pairs)
        prompt = self.prompt
        return usage(len(prompt.ids), said, dropped=prompt.dropped, cut=prompt.cut)

    def logprobs(self, chances: list[Chance]) -> dict[str, Any] | None:
        """Return OpenAI's object of the chances of tokens, if they were asked for."""
        if not self.request.logprobs:
            return None
        content = [
            {
                **_token(self.tokenizer, chance.token, chance.logprob),
                "top_logprobs": [_token(self.tokenizer, *one) for one in chance.top],
            }
            for chance in chances
        ]
        return {"content": content, "refusal": None}


def _token(tokenizer: Tokenizer, token: int, logprob: float) -> dict[str, Any]:
    spelled = tokenizer.spelled(token)
    text = spelled.decode(errors="replace")
    return {"token": text, "logprob": logprob, "bytes": list(spelled)}


QUICK = 1000
"""Characters that are cut into tokens in a millisecond: a thread of their own would take longer."""


async def queued(
    asked: Asked, service: Service, metrics: Metrics, receive: Any, *, prepare: Callable[[], None]
) -> None:
    """Take places in the queue, and only then prepare, in a thread if it takes long; fill them.

    Raises:
        HungUp: The client is gone.
        Busy: There are no places, or time was up.
    """
    asked.ticket = service.reserve(asked.request.n or 1)
    try:
        if sum(len(message.text) for message in asked.request.messages) <= QUICK:
            prepare()
        else:
            await _prepared(asked.ticket, service, receive, prepare)
        service.submit(asked.ticket, asked.pairs)
    except BaseException as error:
        if isinstance(error, HungUp | asyncio.CancelledError):
            metrics.hung_up.inc()
        service.release(asked.ticket)
        raise


async def _prepared(
    ticket: Ticket, service: Service, receive: Any, prepare: Callable[[], None]
) -> None:
    work = asyncio.create_task(asyncio.to_thread(prepare))
    gone = asyncio.create_task(_gone(receive))
    try:
        left = ticket.deadline - time.monotonic()
        await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            raise HungUp
        if not work.done():
            raise service.busy()
        await work
    finally:
        work.cancel()  # a thread that is at work already does not hear it
        gone.cancel()


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def attended(
    asked: Asked, service: Service, metrics: Metrics, receive: Any
) -> AsyncIterator[None]:
    """Watch for the client to hang up; whatever happens, give back the places at the end."""

    async def watch() -> None:
        await _gone(receive)
        asked.ticket.news.put_nowait(HungUp())

    watcher = asyncio.create_task(watch())
    try:
        yield
    except (HungUp, asyncio.CancelledError):
        metrics.hung_up.inc()
        raise
    finally:
        watcher.cancel()
        service.release(asked.ticket)
        metrics.tokens_out.inc(sum(len(request.said) for request, _ in asked.pairs))


async def answered(asked: Asked, service: Service, metrics: Metrics, receive: Any) -> Response:
    """Return the whole answer.

    Raises:
        HungUp: The client is gone.
        Busy: Time was up before there was a row.
        Broken: The engine broke down.
    """
    texts = [""] * len(asked.pairs)
    chances: list[list[Chance]] = [[] for _ in asked.pairs]
    finished: list[str | None] = [None] * len(asked.pairs)
    first = True
    async with attended(asked, service, metrics, receive):
        async for told in asked.ticket.said():
            if first:
                metrics.first_token.observe(time.monotonic() - asked.arrived)
                first = False
            for index, said in told:
                texts[index] += said.text
                chances[index] += said.chances
                finished[index] = said.finished
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": asked.logprobs(chances[index]),
            "finish_reason": finished[index],
        }
        for index, text in enumerate(texts)
    ]
    body = {**asked.head, "object": "chat.completion", "model": asked.model, "choices": choices}
    return JSONResponse({**body, "usage": asked.usage()}, headers=asked.headers)


class Stream(Response):
    """The answer as server-sent events, while it comes."""

    def __init__(self, asked: Asked, service: Service, metrics: Metrics) -> None:
        """Prepare to send."""
        super().__init__(media_type="text/event-stream", headers=asked.headers)
        del self.headers["content-length"]
        self.asked, self.service, self.metrics = asked, service, metrics
        options = asked.request.stream_options
        self.with_usage = options is not None and bool(options.include_usage)
        self.begun: set[int] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events; the time a client may take to read them is limited as well."""
        start = {"status": self.status_code, "headers": self.raw_headers}
        late = asyncio.timeout(self.service.seconds + 10)
        with contextlib.suppress(HungUp, TimeoutError):
            async with late, attended(self.asked, self.service, self.metrics, receive):
                await send({"type": "http.response.start", **start})
                await self._send_events(send)

    async def _send_events(self, send: Any) -> None:
        try:
            async for told in self.asked.ticket.said():
                if not self.begun:
                    waited = time.monotonic() - self.asked.arrived
                    self.metrics.first_token.observe(waited)
                events = [self._event(*one) for one in told]
                body = b"".join(events)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            last = b"data: [DONE]\n\n"
            if self.with_usage:
                last = event(self._chunk([], usage=self.asked.usage())) + last
        except (Busy, Broken) as error:  # too late for a status
            last = event(Refused(500, str(error), kind="server_error").body)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _event(self, index: int, said: Any) -> bytes:
        delta: dict[str, Any] = {"content": said.text} if said.text else {}
        if index not in self.begun:
            self.begun.add(index)
            delta = {"role": "assistant", "content": said.text}
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": self.asked.logprobs(said.chances),
            "finish_reason": said.finished,
        }
        return event(self._chunk([choice], **({"usage": None} if self.with_usage else {})))

    def _chunk(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        head = {**self.asked.head, "object": "chat.completion.chunk", "model": self.asked.model}
        return {**head, "choices": choices, **more}
