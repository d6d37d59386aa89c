"""State of the process that a test must not inherit from the one before it."""

from __future__ import annotations

from tau2_slime.world.users import endpoints, spending


def forget_users() -> None:
    """As if no user simulator had been called in this process: breakers closed, no key refused, nothing spent."""
    endpoints.forget()
    spending.clear()
