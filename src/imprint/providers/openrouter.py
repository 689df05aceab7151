"""OpenRouter: one key, and the models of many companies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from imprint.errors import ProviderError
from imprint.providers import Batch, Reply, Request
from imprint.providers.batched import Batched
from imprint.providers.chat import Mode
from imprint.providers.openai import OpenAI
from imprint.providers.troubles import Trouble, complaint
from imprint.providers.wire import Response, wait_s

BATCHES = ("/batches", "/../beta/batches")
"""Where batches are, below the base URL: where they are now, and where they were in the beta."""

ENDS = ("completed", "failed", "expired", "cancelled")
"""Statuses of a batch that nothing follows."""


class OpenRouter(Batched, OpenAI):
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
        if self.provision.batch:
            text += "; with batch set, only models that have a variant :batch"
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
        if status == 400 and ("not a valid model" in message or ":batch endpoint" in message):
            return "model"
        return super().special(status, error)

    def hint_s(self, error: dict[str, Any]) -> float | None:
        """Return the wait in seconds that the body of an error asks for."""
        told = wait_s(_metadata(error).get("headers") or {})
        return super().hint_s(error) if told is None else told

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand in ``requests`` as one batch; return its name. Raises as `answer` does."""
        model = f"{self.model.removesuffix(':batch')}:batch"
        # The order counts: the server reads the body as a stream. A batch has one model and one
        # route for all its requests, and no route that asks for text that may be trained on;
        # whether the model's may, the probe has found out.
        body: dict[str, Any] = {"endpoint": "/v1/chat/completions", "model": model}
        if self.provision.upstream:
            body["provider"] = {"only": list(self.provision.upstream), "allow_fallbacks": False}
        body["requests"] = [
            {"custom_id": request.key, "body": self._alone(request)} for request in requests
        ]
        name = self.content(await self._found("", body)).get("id")
        if not isinstance(name, str):
            raise self.strange()
        return name

    async def poll(self, batch: str, requests: Mapping[str, Request]) -> Batch:
        """Return how far ``batch`` is; read the results of ``requests``, by key, if it has ended.

        Results are kept for 30 days. Raises as `answer` does.
        """
        response = await self._found(f"/{quote(batch, safe='')}")
        if response.status in (404, 410):
            return Batch("not known any more", {})
        data = self.content(response)
        try:
            state = str(data["status"])
            if state not in ENDS:
                return Batch(state)
            results = {
                item["custom_id"]: self._result(item, requests[item["custom_id"]])
                for item in data.get("results") or []
                if item["custom_id"] in requests
            }
        except (AttributeError, LookupError, TypeError):
            raise self.strange() from None
        said = complaint(data)["message"]
        told = f"{state} ({said})" if said else state
        return Batch(state, results, "" if state == "completed" else told)

    def _alone(self, request: Request) -> dict[str, Any]:
        """Return the body of ``request`` without what the batch says for all."""
        body = self.body(request)
        return {name: body[name] for name in body if name not in ("model", "provider")}

    def _result(self, item: dict[str, Any], request: Request) -> Reply | ProviderError:
        response = item.get("response")
        if not response:
            return self.outcome({"error": item.get("error") or "no response"}, request)
        body, status = response.get("body"), response.get("status_code", 200)
        if status < 400:
            found = self.outcome(body, request)
            if isinstance(found, Reply):  # the variant is no other model
                found = replace(found, model=found.model.removesuffix(":batch"))
            return found
        error = complaint(body) if isinstance(body, dict) else {"message": body}
        return self.outcome({"error": {**error, "code": status}}, request)

    async def _found(self, end: str, body: dict[str, Any] | None = None) -> Response:
        """Return what comes from the first place where batches are."""
        for place in BATCHES:
            response = await self.fetch(place + end, body)
            if response.status != 404:
                break
        return response


def _metadata(error: dict[str, Any]) -> dict[str, Any]:
    found = error.get("metadata")
    return found if isinstance(found, dict) else {}
