"""Scripted misbehaviour: how an API says no, and how an answer turns out badly.

A fault is a name. `REFUSALS` come instead of an answer, `SPOILED` are answers of no use (and to be
paid), `BROKEN` go wrong on the way.
"""

import hashlib
import json
import time
from collections import deque
from dataclasses import replace

from stubs.account import Settings
from stubs.dialects import Ask, Json, Refused, Reply, Said, detail, error, reply
from stubs.talker import conversation, instance, tokens

REFUSALS = {
    "rate-limit": 429,
    "rate-limit-bare": 429,  # without Retry-After
    "per-minute": 429,
    "per-day": 429,
    "no-credit": 402,
    "no-quota": 429,  # how OpenAI says no-credit
    "in-flight-budget": 402,
    "overloaded-500": 500,
    "overloaded-502": 502,
    "overloaded-503": 503,
    "error-in-200": 200,
    "html": 200,
    "html-502": 502,
    "blocked-prompt": 403,
}
SPOILED = (
    "truncated",
    "content-filter",
    "refusal",
    "error-in-choice",  # not paid
    "wrong-roles",
    "rival",
    "placeholder",
    "not-json",
    "schema-ignored",
    "rerouted",
)
BROKEN = ("cut-body", "slow", "hang", "reset")
KINDS = (*REFUSALS, *SPOILED, *BROKEN)

_PAGE = b"<!DOCTYPE html><html><body><h1>Bad gateway</h1></body></html>"


class Script:
    """Says which fault comes next."""

    def __init__(self, settings: Settings) -> None:
        unknown = {*settings.script, *settings.kinds, *settings.batch_script} - {"ok", *KINDS}
        if unknown:
            raise ValueError(f"no fault is called {', '.join(sorted(unknown))}")
        self.settings, self.lines = settings, deque(settings.script)

    def fault(self, place: str, subject: str, nth: int) -> str:
        """Return the fault for the ``nth`` request about ``subject``, ``ok`` for none."""
        settings = self.settings
        if place not in settings.hits:
            return "ok"
        if self.lines:
            return self.lines.popleft()
        if not settings.rate:
            return "ok"
        digest = hashlib.sha256(f"{settings.seed} {subject} {nth}".encode()).digest()
        if int.from_bytes(digest[:6]) >= settings.rate * (1 << 48):
            return "ok"
        return settings.kinds[int.from_bytes(digest[6:12]) % len(settings.kinds)]


def refusal(kind: str, dialect: str, retry_after: float = 1.0) -> Reply:
    """Return how ``dialect`` puts a fault of `REFUSALS`."""
    status, wait = REFUSALS[kind], f"{retry_after:g}"
    if kind.startswith("html"):
        return Reply(status, _PAGE, {"Content-Type": "text/html; charset=utf-8"})
    if kind == "error-in-200":
        return reply(error(dialect, 502, "The provider gave no answer", code="server_error"))
    if kind == "blocked-prompt":
        return _blocked(dialect)
    if kind in ("per-minute", "per-day"):
        return _quota(dialect, kind == "per-day", wait)
    if kind == "in-flight-budget" and dialect == "openrouter":
        extra = {
            "reason": "in_flight_budget_exhausted",
            "limit_source": "openrouter_in_flight_budget",
        }
        body = error(dialect, 402, "The credits are held by requests under way.", extra=extra)
        return reply(body, 402, Retry_After=wait)
    if kind in ("no-credit", "no-quota", "in-flight-budget"):
        code = "insufficient_quota"
        return reply(error(dialect, status, "Insufficient credits. Add more.", code=code), status)
    if status == 429:
        extra = {"raw": "rate-limited upstream", "provider_name": "Stub"}
        body = error(
            dialect,
            429,
            "Resource has been exhausted" if dialect == "gemini" else "Rate limit reached",
            code="rate_limit_exceeded",
            extra=extra if dialect == "openrouter" else None,
        )
        return reply(body, 429, **({"Retry_After": wait} if kind == "rate-limit" else {}))
    return reply(error(dialect, status, "The model is overloaded."), status)


def _blocked(dialect: str) -> Reply:
    if dialect == "gemini":
        usage = {"promptTokenCount": 0, "totalTokenCount": 0}
        blocked = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": usage}
        return reply({**blocked, "modelVersion": "stub-model"})
    if dialect == "openrouter":
        extra = {"reasons": ["violence"], "flagged_input": "Conversation", "provider_name": "Stub"}
        return reply(error(dialect, 403, "The input was flagged", extra=extra), 403)
    return reply(error(dialect, 400, "The prompt was blocked", code="content_filter"), 400)


def _quota(dialect: str, daily: bool, wait: str) -> Reply:
    """Say that a quota is used up, of the minute or of the day."""
    if dialect == "gemini":
        span = "PerDay" if daily else "PerMinute"
        violation = {
            "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
            "quotaId": f"GenerateRequests{span}PerProjectPerModel-FreeTier",
            "quotaDimensions": {"location": "global", "model": "stub-model"},
            "quotaValue": "20",
        }
        details = [
            detail("QuotaFailure", violations=[violation]),
            detail("RetryInfo", retryDelay=f"{wait}s"),  # of a daily quota too, where it lies
        ]
        return reply(error(dialect, 429, "You exceeded your current quota", extra=details), 429)
    if dialect == "openrouter":
        now = time.time()
        reset = (now // 86400 + 1) * 86400 if daily else now + float(wait)
        headers = {
            "X-RateLimit-Limit": "50" if daily else "20",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(int(reset * 1000)),
        }
        said = f"Rate limit exceeded: free-models-per-{'day' if daily else 'min'}. "
        body = error(dialect, 429, said, extra={"headers": headers})
        return reply(
            body, 429, **{name.replace("-", "_"): value for name, value in headers.items()}
        )
    wait = "8h0m0s" if daily else f"{wait}s"
    said = f"Rate limit reached on requests per {'day (RPD)' if daily else 'min (RPM)'}: Limit 20. "
    body = error(dialect, 429, f"{said}Please try again in {wait}.", code="rate_limit_exceeded")
    return reply(body, 429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=wait)


def said(ask: Ask, kind: str, settings: Settings) -> Said:
    """Return what the model says to ``ask``, spoiled by the fault ``kind`` if that is one."""
    if ask.form not in settings.schema_modes:
        if "ignored" not in settings.schema_modes:
            raise Refused(400, f"response_format {ask.form} is not supported by this model.")
        ask = replace(ask, form="none", schema={})
    if kind == "error-in-choice":
        return Said("", "error", ask.model)
    if kind == "refusal":
        return Said("I cannot help with that.", "refusal", ask.model)
    text = _text(ask, kind)
    finish = "stop"
    room = 4 * max(0, ask.limit - settings.thoughts)
    if ask.limit and tokens(text) * 4 > room:
        text, finish = text[:room], "length"
    if kind == "truncated":
        text, finish = text[: len(text) * 3 // 5], "length"
    if kind == "content-filter":
        text, finish = text[: len(text) // 5], "content_filter"
    model = f"{ask.model}-substitute" if kind == "rerouted" else ask.model
    return Said(text, finish, model)


def _text(ask: Ask, kind: str) -> str:
    messages = conversation(ask.system, ask.user)
    if kind == "wrong-roles":
        messages = messages[1:] + messages[:1]
    if kind == "rival":
        messages[-1]["content"] = "I am ChatGPT, made by OpenAI."
    if kind == "placeholder":
        messages[-1]["content"] = "Hello, my name is {{name}}."
    if kind == "schema-ignored":
        return json.dumps({"dialogue": [[turn["role"], turn["content"]] for turn in messages]})
    as_json = ask.form != "none" or "JSON" in ask.system or "JSON" in ask.user
    if kind == "not-json" or not as_json:
        turns = (f"{turn['role'].title()}: {turn['content']}" for turn in messages)
        return "\n\n".join(["Here is the conversation:", *turns])
    wanted: Json = {"messages": messages}
    if ask.schema and "messages" not in ask.schema.get("properties", {}):
        wanted = instance(ask.schema)
    if not ask.schema and "messages" not in ask.system + ask.user and "Exchanges:" not in ask.user:
        wanted = {"greeting": messages[-1]["content"]}  # nobody said which object
    return json.dumps(wanted)
