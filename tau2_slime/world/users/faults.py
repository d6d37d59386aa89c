"""What can go wrong with one call of a simulator, by kind; each kind has one cure.

Only what a provider, its client or its answer does is a `CallFailed`, and so the simulator's failure. Every other exception
is a mistake of this package: it is not caught in this room, and the episode ends as an infrastructure failure.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from enum import StrEnum

from tau2_slime.runtime.server_errors import speaks_of_length


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
    """The conversation is longer than this simulator's context."""
    CONTENT_FILTER = "content_filter"
    """The provider refuses this conversation, or what its model said to it."""
    REJECTED = "rejected"
    """Another 4xx: an unknown model, a malformed request."""
    GARBAGE = "garbage"
    """An answer that is not a usable message."""


RETRIED = {Fault.RATE_LIMIT, Fault.TIMEOUT, Fault.UNAVAILABLE, Fault.GARBAGE}
"""Another try at the same endpoint may help."""
OUTAGE = {Fault.TIMEOUT, Fault.UNAVAILABLE}
"""The endpoint itself is in trouble; the others are about one request or one account."""


class CallFailed(Exception):
    """One call of one simulator gave nothing usable."""

    def __init__(self, fault: Fault, problem: str, retry_after: float | None = None) -> None:
        super().__init__(problem)
        self.fault = fault
        self.retry_after = retry_after
        """Seconds, if the endpoint named any."""

    def without(self, secret: str) -> CallFailed:
        """The same failure, its text without ``secret``, should the endpoint have repeated it."""
        text = str(self).replace(secret, "***") if len(secret) > 4 else str(self)
        return CallFailed(self.fault, text, self.retry_after)


_FILTERED = re.compile(r"content[ _-]?(filter|management|policy)|moderation|flagged|safety system", re.I)
_OUT_OF_MONEY = re.compile(r"insufficient[_ ](quota|credits?|balance|funds)|exceeded your current quota|billing", re.I)
_CLIENTS = ("litellm", "openai", "httpx", "httpcore", "aiohttp")
"""Packages whose exceptions speak of a provider, also where they name no HTTP status."""


def of_status(status: int, text: str, headers: Mapping[str, str] | None = None) -> CallFailed:
    """What an HTTP status other than 2xx means, with the text that came with it."""
    problem = " ".join(text.split())[:400]
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


def of_exception(error: Exception) -> CallFailed | None:
    """What litellm or another provider's client raised, by kind; None for exceptions that no provider causes.

    The clients' exceptions have no common base. Nearly all of them carry the HTTP status as ``status_code``.
    """
    name, status = type(error).__name__, getattr(error, "status_code", None)
    problem = f"{name}: {' '.join(str(error).split())}"
    if isinstance(error, TimeoutError) or "Timeout" in name:
        return CallFailed(Fault.TIMEOUT, problem[:400])
    if name == "ContextWindowExceededError":
        return CallFailed(Fault.CONTEXT_OVERFLOW, problem[:400])
    if name == "ContentPolicyViolationError":
        return CallFailed(Fault.CONTENT_FILTER, problem[:400])
    if isinstance(status, int):
        headers = getattr(error, "litellm_response_headers", None)
        return of_status(status, problem, headers or getattr(getattr(error, "response", None), "headers", None))
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return CallFailed(Fault.UNAVAILABLE, problem[:400])
    return None


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that ``Retry-After`` (or OpenAI's ``retry-after-ms``) asks for; None if it says nothing that can be read."""
    if not headers:
        return None
    given = {str(key).lower(): str(value) for key, value in headers.items()}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(given[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        when = email.utils.parsedate_to_datetime(given["retry-after"])
        return max(0.0, when.timestamp() - time.time())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
