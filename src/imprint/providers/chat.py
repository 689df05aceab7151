"""What the providers over the network share: prompt, probe, and what follows from each answer.

A provider adds its dialect: the body of a request, and where in an answer text and usage are.
"""

import asyncio
import json
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NoReturn

from imprint import keys, plan
from imprint.errors import ProviderError
from imprint.identity import Identity
from imprint.plan import Row
from imprint.providers import Probe, Provider, Reply, Request, prompting, troubles
from imprint.providers.troubles import Declined, Trouble, complaint
from imprint.providers.wire import Garbled, Unreachable, Wire, wait_s
from imprint.settings import Provision

logger = logging.getLogger("imprint")

Mode = Literal["json_schema", "json_object", "prompt"]
"""How a server is told the form of the answer; the prompt itself tells it in any case."""

MODES: tuple[Mode, ...] = ("json_schema", "json_object", "prompt")

ROOMIEST = 16
"""Most times as long as planned that an answer may get: models that think need space for it."""

TRIAL = "Greet me with a bit of json."
"""What the probe asks: so little about the form that only a server which enforces it obeys.

It has to name JSON, or OpenAI refuses the mode json_object.
"""

TRIAL_TOKENS = 2048
"""Longest answer to it; the usual one takes 20, but some models think first."""


class Chat(Provider):
    """A provider that asks a large language model over HTTP."""

    version: ClassVar[int] = prompting.VERSION
    key_variable: ClassVar[str]
    default_url: ClassVar[str]
    resets: ClassVar[str] = "within a day"
    """When a day's quota is given again."""

    def __init__(self, identity: Identity, provision: Provision) -> None:
        super().__init__(identity, provision)
        self.provision = provision
        self.mode: Mode | None = None
        """How the form of answers is asked for; None until a probe finds out."""
        self.room = 1
        """Times as long as planned that answers may get: doubled when one was cut off."""
        self._key = keys.read(self.key_variable) if self.needs_key() else None
        secret = self._key.get_secret_value() if self._key else ""
        self._wire = Wire(
            provision.base_url or self.default_url,
            headers=self.headers(secret) if secret else {},
            secret=secret,
            timeout_s=provision.timeout_s,
        )
        self._system = prompting.system(identity)
        self.schema = prompting.schema()
        self._probing = asyncio.Lock()
        self._told: set[str] = set()

    # What a dialect says: the abstract methods always, the others where it has more to say.

    @abstractmethod
    def headers(self, key: str) -> dict[str, str]:
        """Return what is sent with every request, ``key`` included."""

    @abstractmethod
    def path(self) -> str:
        """Return where requests go, below the base URL."""

    @abstractmethod
    def form(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return the body of ``request`` that asks for the answer's form as ``mode`` says."""

    @abstractmethod
    def hear(self, data: dict[str, Any], request: Request) -> tuple[Reply, object]:
        """Return the reply in ``data``, still without messages, and the text that holds them.

        A finish reason that makes the text useless is the reply's flaw.
        """

    @abstractmethod
    def catalogue(self) -> str:
        """Return, as a sentence, which models there are."""

    def needs_key(self) -> bool:
        """Tell whether a key is to be read."""
        return True

    def special(self, status: int, error: dict[str, Any]) -> Trouble | None:
        """Return what an error is about, where that is not what its status says."""
        return None

    def hint_s(self, error: dict[str, Any]) -> float | None:
        """Return the wait in seconds that the body of an error asks for."""
        return None

    # What the callers use.

    def request(self, row: Row, ask: int = 1) -> Request:
        """Return what would be asked for ``row``; only its `max_tokens` may grow with time."""
        return Request(
            row=row,
            ask=ask,
            provider=self.name,
            model=self.model,
            system=self._system,
            user=prompting.user(row, self.identity, ask=ask),
            max_tokens=prompting.max_tokens(row) * self.room,
        )

    def body(self, request: Request) -> dict[str, Any]:
        """Return the body of ``request`` in the provider's dialect."""
        return self.form(request, self.mode or MODES[0])

    def read(self, data: dict[str, Any], request: Request) -> Reply:
        """Return what ``data``, the body of an answer to ``request``, says.

        Raises:
            ProviderError: It says that something is wrong; see `imprint.providers.troubles`.
        """
        try:
            return self._finished(*self._heard(data, request), request)
        except Declined as error:
            return self._flawed(error, request)

    async def answer(self, request: Request) -> Reply:
        """Send ``request`` and return what comes back; raises as `Provider.answer` does."""
        if self.mode is None:
            await self.probe(None)
        try:
            reply, text = await self._exchange(request, self.body(request))
        except Declined as error:
            return self._flawed(error, request)
        return self._finished(reply, text, request)

    async def probe(self, known: str | None) -> Probe | None:
        """Find out whether key, model and server are right, and set `mode` to what works best.

        Args:
            known: A mode that an earlier probe found.

        Returns:
            The mode, and what it took to find it; None if it was known.

        Raises:
            ProviderBusy: The provider is busy; it may be probed again.
            AnswerLost: Nothing arrived in time; it may be probed again.
            ProviderError: Something is wrong, and what to do about it.
        """
        async with self._probing:
            self.mode = self.mode or next((mode for mode in MODES if mode == known), None)
            if self.mode:
                return None
            replies: list[Reply] = []
            try:
                self.mode = await self._best_mode(replies)
            except (Unreachable, Garbled) as error:
                raise ProviderError(str(error)) from None
        how = {"prompt": "the prompt alone"}.get(self.mode, f"response format {self.mode}")
        logger.info("%s at %s is asked by %s", self.model, self._wire.base_url, how)
        usage = sum((Counter(reply.usage) for reply in replies), Counter())
        costs = [reply.cost_usd for reply in replies if reply.cost_usd is not None]
        return Probe(self.mode, dict(usage), sum(costs) if costs else None)

    async def close(self) -> None:
        """Give back connections."""
        await self._wire.close()

    # How it is done.

    async def _best_mode(self, replies: list[Reply]) -> Mode:
        row = plan.rows(self.identity, seed=0, start=0, stop=1)[0]  # for its seed only
        request = Request(row, 1, self.name, self.model, user=TRIAL, max_tokens=TRIAL_TOKENS)
        declined = None
        for mode in MODES:
            if mode == "prompt" and replies:
                return mode  # the server answers, but in no form of ours: no need to ask again
            try:
                reply, text = await self._exchange(request, self.form(request, mode))
            except Declined as error:
                declined = error
                continue
            replies.append(reply)
            if mode == "prompt" or (reply.flaw is None and _obeys(text, mode)):
                return mode
        assert declined is not None
        raise declined

    async def _exchange(self, request: Request, body: dict[str, Any]) -> tuple[Reply, object]:
        response = await self._wire.post(self.path(), body)
        if 200 <= response.status < 300:
            return self._heard(response.json(), request, response.headers)
        try:
            data = response.json()
        except Garbled:
            data = {"message": response.text}
        self.refuse(response.status, complaint(data), response.headers)

    def _heard(
        self, data: dict[str, Any], request: Request, headers: Mapping[str, str] | None = None
    ) -> tuple[Reply, object]:
        if data.get("error"):
            self.refuse(None, complaint(data), headers or {})
        try:
            return self.hear(data, request)
        except (AttributeError, LookupError, TypeError, ValueError):  # any shape may come
            where = self._wire.base_url
            raise Garbled(f"{where} answered in a dialect not its own. Check base_url.") from None

    def _finished(self, reply: Reply, text: object, request: Request) -> Reply:
        """Return ``reply`` with the conversation in ``text``, or with its flaw."""
        if reply.flaw == "truncated":
            had = request.max_tokens // prompting.max_tokens(request.row)
            self.room = max(self.room, min(ROOMIEST, 2 * had))
        if reply.flaw:
            return reply
        try:
            messages = prompting.parse(str(text), ascii=self.identity.style.ascii)
            return replace(reply, messages=messages)
        except ValueError:
            return replace(reply, flaw="malformed")

    def _flawed(self, error: Declined, request: Request) -> Reply:
        if error.flaw is None:
            raise error
        if str(error) not in self._told:  # once is enough: it may be the same for every row
            self._told.add(str(error))
            logger.warning("warning: %s", error)
        return Reply(messages=[], model=request.model, flaw=error.flaw)

    def refuse(
        self, status: int | None, error: dict[str, Any], headers: Mapping[str, str]
    ) -> NoReturn:
        """Raise what an error means.

        Args:
            status: Of the response; None where the error came inside a successful one.
            error: What the server says.
            headers: Of the response.
        """
        if status is None:
            status = troubles.code(error)
        wait = wait_s(headers)
        said = self._quoted(error)
        raise troubles.verdict(
            self.special(status, error) or troubles.trouble(status),
            f"{self._wire.base_url} answered {status}{f' ({said})' if said else ''}",
            wait=self.hint_s(error) if wait is None else wait,
            advice=self._advice(),
            resets=self.resets,
        )

    def _advice(self) -> dict[Trouble, str]:
        there = " and base_url" if self.provision.base_url else ""
        return {
            "key": f"Check the key in {self.key_variable}.",
            "model": f"Check provider_model ({self.model!r}){there}. {self.catalogue()}",
        }

    def _quoted(self, error: dict[str, Any]) -> str:
        said = " ".join(str(error.get("message") or "").split())
        if self._key:  # some servers repeat it
            said = said.replace(self._key.get_secret_value(), "[key]")
        return said[:300]


def count(usage: dict[str, Any], *kinds: str) -> int:
    """Return the sum of the tokens of ``kinds``; what is not told counts as none."""
    return sum(int(usage.get(kind) or 0) for kind in kinds)


def tokens(given: int, made: int, cached: int) -> dict[str, int]:
    """Return a `Reply.usage`: ``cached`` is a part of what was ``given``, told if there is any."""
    return {"input": given, "output": made, **({"cached": cached} if cached else {})}


def _obeys(text: object, mode: Mode) -> bool:
    """Tell whether ``text`` has the form that ``mode`` asked for."""
    try:
        if mode == "json_schema":
            return bool(prompting.parse(str(text)))
        return isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False
