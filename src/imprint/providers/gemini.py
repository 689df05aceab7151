"""Gemini, by Google's own API."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from imprint.artifacts import digest
from imprint.errors import ProviderError
from imprint.providers import Batch, Reply, Request
from imprint.providers.batched import Batched
from imprint.providers.chat import Mode, count, tokens
from imprint.providers.troubles import Trouble

FLAWS = {
    "MAX_TOKENS": "truncated",
    "SAFETY": "blocked",
    "PROHIBITED_CONTENT": "blocked",
    "BLOCKLIST": "blocked",
    "SPII": "blocked",
}
"""Finish reasons, and the flaw each one is; any other but STOP is a flaw of that name."""

ENDS = ("succeeded", "failed", "cancelled", "expired")
"""States of a batch that nothing follows."""

STATUSES: dict[object, int] = {3: 400, 5: 404, 7: 403, 8: 429, 9: 400, 16: 401}
"""Codes of gRPC in the results of a batch, and the HTTP status of each; others mean: busy."""


class Gemini(Batched):
    """Asks a model by generateContent."""

    name: ClassVar[str] = "gemini"
    key_variable: ClassVar[str] = "GEMINI_API_KEY"
    default_url: ClassVar[str] = "https://generativelanguage.googleapis.com"
    default_model: ClassVar[str] = "gemini-3.1-flash-lite"
    terms = (
        "Google's additional terms for the Gemini API forbid using it to develop models that "
        "compete with Google's."
    )
    resets: ClassVar[str] = "at midnight Pacific time"

    def headers(self, key: str) -> dict[str, str]:
        """Return the header that carries the key."""
        return {"x-goog-api-key": key}

    def path(self) -> str:
        """Return where requests go, below the base URL."""
        return f"{self._model_path()}:generateContent"

    def catalogue(self) -> str:
        """Return, as a sentence, which models there are."""
        return "https://ai.google.dev/gemini-api/docs/models lists what there is."

    def form(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return the body of ``request`` that asks for the answer's form as ``mode`` says."""
        config: dict[str, Any] = {
            "maxOutputTokens": request.max_tokens,
            "seed": (request.row.seed + request.ask) % 2**31,
        }
        if mode != "prompt":
            config["responseMimeType"] = "application/json"
        if mode == "json_schema":
            config["responseJsonSchema"] = self.schema
        if self.model.removeprefix("models/").startswith("gemini-2.5-flash"):
            config["thinkingConfig"] = {"thinkingBudget": 0}  # other models cannot go without
        body: dict[str, Any] = {
            "contents": [{"role": "user", "parts": [{"text": request.user}]}],
            "generationConfig": config,
        }
        if request.system:
            body["systemInstruction"] = {"parts": [{"text": request.system}]}
        return body

    def hear(self, data: dict[str, Any], request: Request) -> tuple[Reply, object]:
        """Return the reply in ``data``, still without messages, and the text that holds them."""
        candidate = (data.get("candidates") or [{}])[0]
        reason = candidate.get("finishReason") or "STOP"
        flaw = None if reason == "STOP" else FLAWS.get(reason, reason.lower().replace("_", " "))
        if (data.get("promptFeedback") or {}).get("blockReason"):
            flaw = "blocked"
        usage = data.get("usageMetadata") or {}
        made = count(usage, "candidatesTokenCount", "thoughtsTokenCount")
        cached = count(usage, "cachedContentTokenCount")
        reply = Reply(
            messages=[],
            model=str(data.get("modelVersion") or request.model),
            usage=tokens(count(usage, "promptTokenCount"), made, cached),
            flaw=flaw,
        )
        parts = (candidate.get("content") or {}).get("parts") or []
        return reply, "".join(part.get("text", "") for part in parts if not part.get("thought"))

    def special(self, status: int, error: dict[str, Any]) -> Trouble | None:
        """Return what an error is about, where that is not what its status says."""
        details = _details(error)
        if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
            return "key"  # of status 400
        if error.get("status") == "FAILED_PRECONDITION":
            return "credit"  # no free use from here: billing has to be on
        quotas = [quota for detail in details for quota in detail.get("violations") or []]
        if any("PerDay" in str(quota.get("quotaId")) for quota in quotas):
            return "quota"
        return None

    def hint_s(self, error: dict[str, Any]) -> float | None:
        """Return the wait in seconds that the body of an error asks for."""
        for detail in _details(error):
            if found := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(detail.get("retryDelay"))):
                return float(found[1])
        return None

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand in ``requests`` as one batch; return its name. Raises as `answer` does."""
        items = [{"request": self.body(each), "metadata": {"key": each.key}} for each in requests]
        shown = f"imprint {digest([each.key for each in requests])[:12]}"
        batch = {"displayName": shown, "inputConfig": {"requests": {"requests": items}}}
        response = await self.fetch(f"{self._model_path()}:batchGenerateContent", {"batch": batch})
        name = self.content(response).get("name")
        if not isinstance(name, str):
            raise self.strange()
        return name

    async def poll(self, batch: str, requests: Mapping[str, Request]) -> Batch:
        """Return how far ``batch`` is; read the results of ``requests``, by key, if it has ended.

        Raises as `answer` does.
        """
        response = await self.fetch(f"/v1beta/{quote(batch)}")
        if response.status in (404, 410):
            return Batch("not known any more", {})
        data = self.content(response)
        try:
            metadata = data.get("metadata") or data
            state = str(metadata.get("state")).rpartition("_STATE_")[2].lower()
            if not data.get("done") and state not in ENDS:
                return Batch(state)
            results = {
                item["metadata"]["key"]: self._result(item, requests[item["metadata"]["key"]])
                for item in _inlined(data.get("response") or metadata.get("output") or {})
                if item["metadata"]["key"] in requests
            }
        except (AttributeError, LookupError, TypeError):
            raise self.strange() from None
        said = (data.get("error") or {}).get("message")
        told = f"{state} ({said})" if said else state
        return Batch(state, results, "" if state == "succeeded" and not said else told)

    def _result(self, item: dict[str, Any], request: Request) -> Reply | ProviderError:
        if item.get("response"):
            return self.outcome(item["response"], request)
        error = item.get("error") or {}
        code = STATUSES.get(error.get("code"), error.get("code"))
        return self.outcome({"error": {**error, "code": code}}, request)

    def _model_path(self) -> str:
        return f"/v1beta/models/{quote(self.model.removeprefix('models/'))}"


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    found = error.get("details")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _inlined(output: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the results in ``output``, which lie two levels deep in some answers."""
    found = output.get("inlinedResponses") or []
    return found.get("inlinedResponses") or [] if isinstance(found, dict) else found
