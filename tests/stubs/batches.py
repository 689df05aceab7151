"""Batches of OpenRouter and of Gemini: handed in, asked after, and answered at half the price."""

import itertools
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from stubs.account import Count, Settings
from stubs.dialects import Ask, Json, Refused, answer, known_model, read_chat, read_gemini
from stubs.faults import BROKEN, REFUSALS, said

DISCOUNT = 0.5
_STATE = {"completed": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED"}


@dataclass
class _Batch:
    dialect: str
    model: str
    asks: dict[str, Ask | Refused]
    """By key; what the API objects to shows only in the results."""
    created: int
    polls: int = 0
    results: list[Json] | None = None


class Batches:
    """All batches handed in so far."""

    def __init__(self, settings: Settings, count: Count) -> None:
        self.settings, self.count = settings, count
        self.script = deque(settings.batch_script)
        self.batches: dict[str, _Batch] = {}
        self.numbers = itertools.count(1)

    def submit_openrouter(self, body: Json) -> Json:
        """Take in ``{endpoint, model, requests}``, in this order."""
        names = list(body)
        if not {"endpoint", "model", "requests"} <= set(names):
            raise Refused(400, "A batch needs endpoint, model and requests.")
        if names.index("requests") < max(names.index("endpoint"), names.index("model")):
            raise Refused(400, "endpoint and model should come before requests.")
        if body["endpoint"] != "/v1/chat/completions":
            raise Refused(400, f"The endpoint {body['endpoint']} cannot be asked in batches.")
        known_model("openrouter", body["model"])
        asks: dict[str, Ask | Refused] = {}
        for item in body["requests"]:
            if item["body"].get("model", body["model"]) != body["model"]:
                raise Refused(400, "All requests of a batch should name its model.")
            asks[item["custom_id"]] = _read(read_chat, "openrouter", item["body"], body["model"])
        return self._openrouter(*self._take("openrouter", body["model"], asks, body["requests"]))

    def submit_gemini(self, model: str, body: Json) -> Json:
        """Take in the requests of ``batch.inputConfig``."""
        known_model("gemini", model)
        batch = body.get("batch", {})
        items = batch.get("inputConfig", {}).get("requests", {}).get("requests", [])
        if not batch.get("displayName"):
            raise Refused(400, "batch.displayName is required.")
        asks = {
            item.get("metadata", {}).get("key", str(number)): _read(
                read_gemini, model, item["request"]
            )
            for number, item in enumerate(items)
        }
        return self._gemini(*self._take("gemini", model, asks, items))

    def poll(self, dialect: str, name: str) -> Json:
        """Return how far a batch is, one step further at each poll."""
        batch = self.batches.get(name)
        if batch is None or batch.dialect != dialect:
            raise Refused(404, f"There is no batch {name}.")
        batch.polls += 1
        if batch.polls >= self.settings.batch_polls and batch.results is None:
            batch.results = self._results(batch)
        return self._gemini(name, batch) if dialect == "gemini" else self._openrouter(name, batch)

    def _take(
        self, dialect: str, model: str, asks: dict[str, Ask | Refused], items: list[Any]
    ) -> tuple[str, _Batch]:
        if not items or len(asks) != len(items):
            raise Refused(400, "A batch needs requests, each with an id of its own.")
        number = next(self.numbers)
        name = f"batches/stub{number}" if dialect == "gemini" else f"batch_stub{number}"
        batch = self.batches[name] = _Batch(dialect, model, asks, int(time.time()))
        self.count.batches += 1
        self.count.batched += len(asks)
        return name, batch

    def _results(self, batch: _Batch) -> list[Json]:
        """Answer everything, or the first half of it if the batch does not get further."""
        end = self.settings.batch_end
        if end == "failed":
            return []
        reach = len(batch.asks) if end == "completed" else len(batch.asks) // 2
        return [
            self._result(batch.dialect, key, ask, end if number >= reach else "")
            for number, (key, ask) in enumerate(batch.asks.items())
        ]

    def _result(self, dialect: str, key: str, ask: Ask | Refused, cut: str) -> Json:
        kind = self.script.popleft() if self.script and not cut else "ok"
        if kind != "ok":
            self.count.faults[kind] += 1
        body, code, problem = None, 0, ""
        if cut:
            code, problem = 408, f"batch_{cut}"
        elif isinstance(ask, Refused):
            code, problem = ask.status, str(ask)
        elif kind in REFUSALS or kind in BROKEN:
            code, problem = max(400, REFUSALS.get(kind, 500)), kind
        else:
            body, usd = answer(ask, said(ask, kind, self.settings), self.settings, DISCOUNT)
            if kind != "error-in-choice":
                self.count.paid(ask.identity, usd)
        if dialect == "gemini":
            named = {"metadata": {"key": key}}
            error = {"code": code, "message": problem}
            return {**named, "response": body} if body else {**named, "error": error}
        response = {"status_code": 200, "body": body} if body else None
        failure = None if body else {"code": str(code), "message": problem}
        return {"custom_id": key, "response": response, "error": failure}

    def _openrouter(self, name: str, batch: _Batch) -> Json:
        results, end = batch.results, self.settings.batch_end
        steps = ("validating", "in_progress", "finalizing")
        answered = [item["response"]["body"] for item in results or () if item["response"]]
        usage = {
            kind: sum(body["usage"][kind] for body in answered)
            for kind in ("prompt_tokens", "completion_tokens", "total_tokens", "cost")
        }
        return {
            "id": name,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "model": batch.model,
            "provider": "Stub",
            "status": steps[min(batch.polls, 2)] if results is None else end,
            "request_counts": {
                "total": len(batch.asks),
                "completed": len(answered),
                "failed": len(results or ()) - len(answered),
            },
            "results": results or None,
            "usage": usage if answered else None,
            "error": {"message": "The batch failed."} if results == [] else None,
            "created_at": batch.created,
            "expires_at": batch.created + 86400,
            "finalized_at": None if results is None else int(time.time()),
            "completion_window": "24h",
        }

    def _gemini(self, name: str, batch: _Batch) -> Json:
        results, end = batch.results, _STATE.get(self.settings.batch_end, "CANCELLED")
        now = "RUNNING" if batch.polls else "PENDING"
        failed = sum("error" in item for item in results or ())
        stats = {
            "requestCount": len(batch.asks),
            "successfulRequestCount": len(results or ()) - failed,
            "failedRequestCount": failed,
        }
        kind = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
        metadata = {
            "@type": kind,
            "name": name,
            "model": f"models/{batch.model}",
            "state": f"BATCH_STATE_{now if results is None else end}",
            "batchStats": {key: str(value) for key, value in stats.items()},
        }
        operation: Json = {"name": name, "metadata": metadata}
        if results is None:
            return operation
        if end == "FAILED":
            return {**operation, "done": True, "error": {"code": 13, "message": "It failed."}}
        inlined = {"inlinedResponses": {"inlinedResponses": results}}
        return {**operation, "done": True, "response": {"@type": f"{kind}Output", **inlined}}


def _read(reader: Any, *parts: Any) -> Ask | Refused:
    """Read a request; one that is wrong fails alone, when its turn comes."""
    try:
        found: Ask = reader(*parts)
    except Refused as refused:
        return refused
    return found
