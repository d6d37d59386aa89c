"""What can go wrong with one call of a model behind a chat endpoint, by kind; each kind has one cure.

Only what a provider, its client or its answer does is a `CallFailed`, and so the failure of whoever speaks through it. Every
other exception is a mistake of this package: it is not caught here, and the episode ends as an infrastructure failure.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from tau2_slime.runtime.secrets import redact
from tau2_slime.runtime.server_errors import speaks_of_length

if TYPE_CHECKING:
    from tau2_slime.chat.completion import Completion

LONGEST_PAUSE = 60.0
"""Seconds that one ``Retry-After`` may ask for; after them the endpoint is asked again, and may ask for more."""


class Fault(StrEnum):
    """Why a call gave nothing usable."""

    RATE_LIMIT = "rate_limit"
    """429: later, and not before Retry-After."""
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    """No connection, or 5xx."""
    AUTHENTICATION = "authentication"
    """The key is refused, or its account has no money left: only a person can change that."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The conversation is longer than this model's context."""
    CONTENT_FILTER = "content_filter"
    """The provider refuses this conversation, or what its model said to it."""
    REJECTED = "rejected"
    """Another 4xx: an unknown model, a malformed request; or a redirect."""
    GARBAGE = "garbage"
    """An answer that is not a usable message."""
    CUT = "cut"
    """The message ends at a limit of tokens: one more try, with more room."""


RETRIED = {Fault.RATE_LIMIT, Fault.TIMEOUT, Fault.UNAVAILABLE, Fault.GARBAGE}
"""Another try at the same endpoint may help."""
OUTAGE = {Fault.TIMEOUT, Fault.UNAVAILABLE}
"""The endpoint itself is in trouble; the others are about one request or one account."""


class CallFailed(Exception):
    """One call of one model gave nothing usable. Its text has no key in it, whatever the endpoint repeated."""

    def __init__(self, fault: Fault, problem: str, retry_after: float | None = None) -> None:
        super().__init__(one_line(problem))
        self.fault = fault
        self.retry_after = retry_after
        """Seconds, if the endpoint named any."""
        self.billed: Completion | None = None
        """Of an answer that came and cannot be used: its bill, in a completion that says nothing."""


class UnusableMessage(CallFailed):
    """The endpoint works, and what its model said cannot be used."""

    def __init__(self, problem: str) -> None:
        super().__init__(Fault.GARBAGE, problem)


def one_line(text: str, limit: int = 400) -> str:
    """``text`` from outside for a message: without keys, without line breaks, and then cut."""
    flat = " ".join(redact(text[:100_000]).split())
    return flat if len(flat) <= limit else flat[:limit] + "…"


_FILTERED = re.compile(
    r"content[ _-]?(filter|management|policy)|moderation|flagged|safety system|data_inspection", re.I
)
_OUT_OF_MONEY = re.compile(
    r"insufficient[_ ](quota|credits?|balance|funds)|exceeded your current quota|billing|payment[_ ]required|arrearage",
    re.I,
)
_REFUSED_KEY = re.compile(
    r"(invalid|incorrect|missing)[_ ](api[_ -]?key|authentication)|unauthori[sz]ed|authentication[_ ](error|fails?|failed)"
    r"|permission[_ ]denied",
    re.I,
)
_TOO_MANY = re.compile(r"rate[_ -]?limit|too many requests|resource[_ ]exhausted|throttl", re.I)
_CLIENTS = ("litellm", "openai", "httpx", "httpcore", "aiohttp")
"""Packages whose exceptions speak of a provider, also where they name no HTTP status."""


def of_status(status: int, text: str, headers: Mapping[str, str] | None = None, *, where: str = "") -> CallFailed:
    """What an HTTP status other than 2xx means, with the text that came with it. ``where``: begins the message."""
    problem = where + error_text(text)
    if status in (301, 302, 303, 307, 308):
        return CallFailed(
            Fault.REJECTED, f"HTTP {status}: the endpoint redirects. Redirects are not followed ({problem})"
        )
    if status < 400:
        return CallFailed(Fault.GARBAGE, problem)
    if status == 408:
        return CallFailed(Fault.TIMEOUT, problem)
    if status in (400, 413) and speaks_of_length(text):
        return CallFailed(Fault.CONTEXT_OVERFLOW, problem)
    if status in (400, 403) and _FILTERED.search(text):
        return CallFailed(Fault.CONTENT_FILTER, problem)
    if status in (401, 402, 403) or (status == 429 and _OUT_OF_MONEY.search(text)):
        return CallFailed(Fault.AUTHENTICATION, problem)
    if status == 429:
        return CallFailed(Fault.RATE_LIMIT, problem, retry_after(headers))
    if status < 500:
        return CallFailed(Fault.REJECTED, problem)
    return CallFailed(Fault.UNAVAILABLE, problem, retry_after(headers))


def of_error_body(error: object) -> CallFailed:
    """What an error means that came where an answer should be, under HTTP 200: by its code, else by its words."""
    said = json.dumps(error, ensure_ascii=False, default=str)
    where = "an error instead of an answer: "
    status = _status_in(error)
    if status is not None and not 200 <= status < 400:
        return of_status(status, said, where=where)
    problem = where + error_text(said)
    for pattern, fault in (
        (_OUT_OF_MONEY, Fault.AUTHENTICATION),
        (_REFUSED_KEY, Fault.AUTHENTICATION),
        (_TOO_MANY, Fault.RATE_LIMIT),
        (_FILTERED, Fault.CONTENT_FILTER),
    ):
        if pattern.search(said):
            return CallFailed(fault, problem)
    return CallFailed(Fault.CONTEXT_OVERFLOW if speaks_of_length(said) else Fault.GARBAGE, problem)


def _status_in(error: object) -> int | None:
    """The HTTP status that an error body names, as a number or in digits; None if it names none."""
    if isinstance(error, list):
        return next((status for inner in error[:4] if (status := _status_in(inner)) is not None), None)
    if not isinstance(error, Mapping):
        return None
    for name in ("code", "status", "status_code", "http_status", "error"):
        value = error.get(name)
        if isinstance(value, Mapping):
            value = _status_in(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return value
    return None


def error_text(text: str) -> str:
    """What an error body says: its message where it is JSON of a known form, with its code, else the whole text.

    >>> error_text('{"error": {"message": "no such model", "code": "model_not_found"}}')
    'no such model (model_not_found)'
    """
    try:
        body: object = json.loads(text[:100_000])
    except (ValueError, RecursionError):
        return text
    if isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, Mapping):
        body = body.get("error") or body
    if isinstance(body, str):
        return body
    if not isinstance(body, Mapping):
        return text
    message = next((body[name] for name in ("message", "detail", "msg", "status_msg") if body.get(name)), None)
    if not isinstance(message, str):
        return text
    codes = [str(body[name]) for name in ("code", "type", "status_code") if isinstance(body.get(name), str | int)]
    return f"{message} ({', '.join(dict.fromkeys(codes))})" if codes else message


def of_exception(error: Exception) -> CallFailed | None:
    """What litellm or another provider's client raised, by kind; None for exceptions that no provider causes.

    The clients' exceptions have no common base. Nearly all of them carry the HTTP status as ``status_code``.
    """
    name, status = type(error).__name__, getattr(error, "status_code", None)
    problem = f"{name}: {error}"
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return CallFailed(Fault.TIMEOUT, problem)
    if name == "ContextWindowExceededError":
        return CallFailed(Fault.CONTEXT_OVERFLOW, problem)
    if name == "ContentPolicyViolationError":
        return CallFailed(Fault.CONTENT_FILTER, problem)
    if isinstance(status, int):
        headers = getattr(error, "litellm_response_headers", None)
        return of_status(status, problem, headers or getattr(getattr(error, "response", None), "headers", None))
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return CallFailed(Fault.UNAVAILABLE, problem)
    return None


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that ``Retry-After`` (or OpenAI's ``retry-after-ms``) asks for, at most `LONGEST_PAUSE`.

    None if it says nothing that can be read.
    """
    if not headers:
        return None
    given = {str(key).lower(): str(value) for key, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(given[name]) * unit
        except (KeyError, ValueError):
            continue
        return min(seconds, LONGEST_PAUSE) if not math.isnan(seconds) and seconds >= 0 else None
    try:
        when = email.utils.parsedate_to_datetime(given["retry-after"])
        return min(max(0.0, when.timestamp() - time.time()), LONGEST_PAUSE)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
