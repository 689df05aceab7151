"""OpenRouter: one key, and the models of many companies."""

from typing import Any, ClassVar

from imprint.providers import Request
from imprint.providers.chat import Mode
from imprint.providers.openai import OpenAI
from imprint.providers.troubles import Trouble
from imprint.providers.wire import wait_s


class OpenRouter(OpenAI):
    """Asks a model through OpenRouter, which picks the company that runs it."""

    name: ClassVar[str] = "openrouter"
    key_variable: ClassVar[str] = "OPENROUTER_API_KEY"
    default_url: ClassVar[str] = "https://openrouter.ai/api/v1"
    default_model: ClassVar[str] = "qwen/qwen3-235b-a22b-2507"
    terms = None
    resets: ClassVar[str] = "at midnight UTC"

    def needs_key(self) -> bool:
        """Tell whether a key is to be read."""
        return True

    def headers(self, key: str) -> dict[str, str]:
        """Return the header that carries the key, and the name that OpenRouter's lists show."""
        return super().headers(key) | {"X-Title": "imprint"}

    def catalogue(self) -> str:
        """Return, as a sentence, which models there are."""
        text = "https://openrouter.ai/models lists what there is"
        if self.provision.distillable:
            text += "; with distillable set, only models whose terms allow training answer"
        if self.provision.upstream:
            text += "; with upstream set, only those companies do"
        return text + "."

    def extras(self, request: Request, mode: Mode) -> dict[str, Any]:
        """Return who may answer."""
        route: dict[str, Any] = {}
        if mode != "prompt":  # else a company that ignores the form may be picked
            route["require_parameters"] = True
        if self.provision.distillable:
            route["enforce_distillable_text"] = True
        if self.provision.upstream:
            route |= {"only": list(self.provision.upstream), "allow_fallbacks": False}
        return {"provider": route} if route else {}

    def cost_usd(self, usage: dict[str, Any]) -> float | None:
        """Return what an answer cost: every one says so."""
        cost = usage.get("cost")
        return None if cost is None else float(cost)

    def special(self, status: int, error: dict[str, Any]) -> Trouble | None:
        """Return what an error is about, where that is not what its status says."""
        metadata, message = _metadata(error), str(error.get("message"))
        if status == 403 and (metadata.get("reasons") or metadata.get("flagged_input")):
            return "blocked"
        if status == 402 and metadata.get("limit_source") == "openrouter_in_flight_budget":
            return "limit"
        if status == 429 and "per-day" in message:
            return "quota"
        if status == 400 and "not a valid model" in message:
            return "model"
        return super().special(status, error)

    def hint_s(self, error: dict[str, Any]) -> float | None:
        """Return the wait in seconds that the body of an error asks for."""
        told = wait_s(_metadata(error).get("headers") or {})
        return super().hint_s(error) if told is None else told


def _metadata(error: dict[str, Any]) -> dict[str, Any]:
    found = error.get("metadata")
    return found if isinstance(found, dict) else {}
