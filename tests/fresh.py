"""State of the process that a test must not inherit from the one before it."""

from __future__ import annotations

from tau2_slime.runtime import run_stop
from tau2_slime.slime_adapter import weights
from tau2_slime.world.users import endpoints, spending
from tau2_slime.world.users.spending import _messages


def forget_users() -> None:
    """As if no user simulator had been called in this process: breakers closed, no key refused, nothing spent."""
    endpoints._endpoints.clear()
    endpoints._refused.clear()
    run_stop.clear()
    weights.forget()
    spending._accounts.clear()
    spending._elsewhere.clear()
    _messages.clear()
