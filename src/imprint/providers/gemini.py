"""Gemini, by Google's own API."""

import re
from typing import Any, ClassVar
from urllib.parse import quote

from imprint.providers import Reply, Request
from imprint.providers.chat import Chat, Mode, count, tokens
from imprint.providers.troubles import Trouble

FLAWS = {
    "MAX_TOKENS": "truncated",
    "SAFETY": "blocked",
    "PROHIBITED_CONTENT": "blocked",
    "BLOCKLIST": "blocked",
    "SPII": "blocked",
}
"""Finish reasons, and the flaw each one is; any other but STOP is a flaw of that name."""


class Gemini(Chat):
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
        return f"/v1beta/models/{quote(self.model.removeprefix('models/'))}:generateContent"

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


def _details(error: dict[str, Any]) -> list[dict[str, Any]]:
    found = error.get("details")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
