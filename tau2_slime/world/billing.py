"""Who pays for the calls of paid models: whoever runs episodes may look at every call before it is made, and at its bill.

Nothing is set in training. `PAYER` belongs to the running task, so episodes that run side by side have payers of their own.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol


class Payer(Protocol):
    """Sees the calls of one episode."""

    def before(self, role: str, model: str, prompt: list[dict[str, Any]], args: dict[str, Any], *, own: bool) -> Any:
        """A call is about to be made; what is returned comes back to `after`. ``own``: an endpoint of the user's own.

        Raises:
            EpisodeAborted: the call must not be made.
        """

    def after(self, ticket: Any, response: Any | None, *, unknown: bool = False) -> None:
        """The call's litellm response; None: it failed. ``unknown``: whether it will be billed is not known."""


PAYER: ContextVar[Payer | None] = ContextVar("tau2_slime_payer", default=None)
