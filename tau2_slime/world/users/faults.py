"""What can go wrong with one call of a simulator, by kind; each kind has one cure."""

from __future__ import annotations

import email.utils
import math
import re
import time
from enum import StrEnum
from typing import Any

from tau2_slime.runtime.server_errors import speaks_of_length


class Fault(StrEnum):
    """Why a call gave nothing usable."""

    RATE_LIMIT = "rate_limit"
    """429: later, and not before Retry-After."""
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    """No connection, or 5xx."""
    AUTHENTICATION = "authentication"
    """The key is refused, or its account has no money left: nothing but a person cures it."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The conversation is longer than this simulator's context."""
    CONTENT_FILTER = "content_filter"
    """The provider refuses this conversation, or what its model said to it."""
    REJECTED = "rejected"
    """Another 4xx: an unknown model, a malformed request."""
    GARBAGE = "garbage"
    """An answer that is no usable message."""


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


_FILTERED = re.compile(r"content[ _-]?(filter|management|policy)|moderation|flagged|safety system", re.I)
_BROKE = re.compile(r"insufficient[_ ](quota|credits?|balance|funds)|exceeded your current quota|billing", re.I)


def of_exception(error: Exception) -> CallFailed:
    """What litellm, its HTTP client or the endpoint raised, by kind. litellm's errors have no common base, only a status."""
    name, status = type(error).__name__, getattr(error, "status_code", None)
    text = " ".join(str(error).split())
    problem = f"{name}: {text[:300]}"
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    if isinstance(error, TimeoutError) or name in ("Timeout", "APITimeoutError") or status == 408:
        return CallFailed(Fault.TIMEOUT, problem)
    if name == "ContextWindowExceededError" or (status in (400, 413) and speaks_of_length(text)):
        return CallFailed(Fault.CONTEXT_OVERFLOW, problem)
    if name == "ContentPolicyViolationError" or (status in (400, 403) and _FILTERED.search(text)):
        return CallFailed(Fault.CONTENT_FILTER, problem)
    if status in (401, 402, 403) or (status == 429 and _BROKE.search(text)):
        return CallFailed(Fault.AUTHENTICATION, problem)
    if status == 429:
        return CallFailed(Fault.RATE_LIMIT, problem, retry_after(headers))
    if isinstance(status, int) and 400 <= status < 500:
        return CallFailed(Fault.REJECTED, problem)
    if isinstance(status, int) and status >= 500:
        return CallFailed(Fault.UNAVAILABLE, problem, retry_after(headers))
    return CallFailed(Fault.GARBAGE, problem)


def retry_after(headers: Any) -> float | None:
    """Seconds that ``Retry-After`` (or OpenAI's ``retry-after-ms``) asks for; None if it says nothing that can be read."""
    if not headers:
        return None
    given = {str(key).lower(): str(value) for key, value in dict(headers).items()}
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
