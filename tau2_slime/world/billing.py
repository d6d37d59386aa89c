"""Who pays for the calls of paid models: code that runs episodes may see every call before it is made, and its answer.

Training sets nothing. `PAYER` belongs to the running task, so episodes that run side by side have payers of their own.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Protocol

from tau2_slime.chat.faults import CallFailed, Fault


class Payer(Protocol):
    """Sees the calls of one episode."""

    def before(self, role: str, model: str, prompt: list[dict[str, Any]], args: dict[str, Any], *, own: bool) -> object:
        """A call is about to be made. ``own``: to an endpoint of the user's own. The result comes back to `after`.

        Raises:
            EpisodeAborted: the call must not be made.
        """

    def after(self, ticket: Any, response: object | None, *, unknown: bool = False) -> None:
        """The call is over. ``ticket``: what `before` returned, of whatever type that payer chose.

        ``response``: the answer, with its ``usage``; None if the call failed.
        ``unknown``: nobody knows whether the provider bills the failed call.
        """


PAYER: ContextVar[Payer | None] = ContextVar("tau2_slime_payer", default=None)


def is_bill_unknown(error: BaseException) -> bool:
    """True if nobody knows whether the provider bills a call that ended so: no answer in time, or nobody waited for it."""
    return isinstance(error, asyncio.CancelledError) or (isinstance(error, CallFailed) and error.fault is Fault.TIMEOUT)
