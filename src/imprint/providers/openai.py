"""OpenAI, and every server that speaks its dialect: vLLM, Ollama, llama.cpp, LM Studio."""

import re
from typing import Any, ClassVar
from urllib.parse import urlsplit

from imprint import keys
from imprint.identity import Identity
from imprint.providers import Reply, Request
from imprint.providers.chat import Chat, Mode, count, tokens
from imprint.providers.troubles import Trouble
from imprint.settings import Provision

HOST = "api.openai.com"

FLAWS = {"length": "truncated", "content_filter": "blocked"}
"""Finish reasons that make an answer useless, and the flaw each one is."""

CODES: dict[object, Trouble] = {
    "invalid_api_key": "key",
    "model_not_found": "model",
    "insufficient_quota": "credit",  # of status 429, but waiting does not help
    "billing_hard_limit_reached": "credit",
    "content_filter": "blocked",
    "content_policy_violation": "blocked",
}
"""Error codes that say more than the status they come with."""

_WAIT = re.compile(r"try again in ((?:\d+(?:\.\d+)?(?:ms|h|m|s))+)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}


class OpenAI(Chat):
    """Asks a model by the chat completions API."""

    name: ClassVar[str] = "openai"
    key_variable: ClassVar[str] = "OPENAI_API_KEY"
    default_url: ClassVar[str] = f"https://{HOST}/v1"
    default_model: ClassVar[str] = "gpt-4.1-mini"
    terms: str | None = (
        "OpenAI's terms of use forbid using answers to develop models that compete with OpenAI's."
    )

    def __init__(self, identity: Identity, provision: Provision) -> None:
        host = urlsplit(provision.base_url or self.default_url).hostname
        self.official = host == HOST
        """Whether OpenAI itself answers, and not another server that speaks like it."""
        super().__init__(identity, provision)
        if not self.official:
            self.terms = None

    def needs_key(self) -> bool:
        """Tell whether a key is to be read: servers of one's own may do without."""
        return self.official or keys.given(self.key_variable)

    def headers(self, key: str) -> dict[str, str]:
        """Return the header that carries the key."""
        return {"Authorization": f"Bearer {key}"}

    def path(self) -> str:
        """Return where requests go, below the base URL."""
        return "/chat/completions"

    def catalogue(self) -> str:
        """Return, as a sentence, which models there are."""
        if self.official:
            return "https://platform.openai.com/docs/models lists what there is."
        return "A GET of /models below base_url lists what there is."

    def form(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return the body of ``request`` that asks for the answer's form as ``mode`` says."""
        messages = [
            {"role": role, "content": text}
            for role, text in (("system", request.system), ("user", request.user))
            if text
        ]
        length = "max_completion_tokens" if self.official else "max_tokens"
        body = {"model": request.model, "messages": messages, length: request.max_tokens}
        if mode == "json_schema":
            wanted = {"name": "conversation", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": mode, "json_schema": wanted}
        elif mode == "json_object":
            body["response_format"] = {"type": mode}
        return body | self.extras(request, mode)

    def extras(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return the part of the body that not every server of this dialect takes."""
        return {"seed": (request.row.seed + request.ask) % 2**31}

    def hear(self, data: dict[str, Any], request: Request) -> tuple[Reply, object]:
        """Return the reply in ``data``, still without messages, and the text that holds them."""
        choice = (data.get("choices") or [{}])[0]
        message, usage = choice.get("message") or {}, data.get("usage") or {}
        made = count(usage, "completion_tokens")  # thoughts are among them
        flaw = FLAWS.get(choice.get("finish_reason")) or (
            "refused" if message.get("refusal") else None
        )
        if isinstance(choice.get("error"), dict):
            if not made:
                self.refuse(None, choice["error"], {})
            flaw = "broken off"  # and to be paid
        cached = count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
        reply = Reply(
            messages=[],
            model=str(data.get("model") or request.model),
            usage=tokens(count(usage, "prompt_tokens"), made, cached),
            cost_usd=self.cost_usd(usage),
            flaw=flaw,
        )
        return reply, message.get("content")

    def cost_usd(self, usage: dict[str, Any]) -> float | None:
        """Return what an answer cost, if its usage says so."""
        return None

    def special(self, status: int, error: dict[str, Any]) -> Trouble | None:
        """Return what an error is about, where that is not what its status says."""
        return CODES.get(error.get("code"))

    def hint_s(self, error: dict[str, Any]) -> float | None:
        """Return the wait in seconds that the body of an error asks for."""
        found = _WAIT.search(str(error.get("message")))
        if found is None:
            return None
        parts = re.findall(r"([\d.]+)(ms|h|m|s)", found[1])
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
