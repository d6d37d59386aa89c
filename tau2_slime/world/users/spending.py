"""What the simulators of this process have cost so far: tokens, seconds and dollars of each, and the limit on them.

Samples carry their own share, but a dynamic filter throws samples away, and their bill stays.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tau2_slime.config.simulators import Price
from tau2_slime.errors import BudgetSpent
from tau2_slime.runtime import run_stop
from tau2_slime.world.users.spec import load_litellm


@dataclass
class Account:
    """One simulator."""

    calls: int = 0
    """Answered, usable or not."""
    failed: int = 0
    """Not answered."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """Of the answered calls, from request to answer; queues and pauses are not in it."""
    dollars: float = 0.0


class Spending:
    """Accounts by simulator; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}

    def answered(self, name: str, seconds: float, prompt: int, completion: int, dollars: float) -> None:
        with self._lock:
            account = self._accounts.setdefault(name, Account())
            account.calls += 1
            account.seconds += seconds
            account.prompt_tokens += prompt
            account.completion_tokens += completion
            account.dollars += dollars

    def failed(self, name: str) -> None:
        with self._lock:
            self._accounts.setdefault(name, Account()).failed += 1

    @property
    def dollars(self) -> float:
        with self._lock:
            return sum(account.dollars for account in self._accounts.values())

    def accounts(self) -> dict[str, Account]:
        """A copy."""
        with self._lock:
            return {name: replace(account) for name, account in self._accounts.items()}

    def check(self, budget: float | None) -> None:
        """Stop the run once ``budget`` dollars are spent.

        Raises:
            BudgetSpent: they are.
        """
        if budget is None or self.dollars < budget:
            return
        shares = ", ".join(f"{name} ${a.dollars:.2f}" for name, a in sorted(self.accounts().items()) if a.dollars)
        message = f"the user simulators have cost the user_budget of ${budget:g} ({shares}); raise it to go on"
        message = _first.setdefault(budget, message)
        run_stop.stop_run(message, still=lambda: self.dollars >= budget)
        raise BudgetSpent(message)

    def clear(self) -> None:
        with self._lock:
            self._accounts.clear()
        _first.clear()


_first: dict[float, str] = {}
"""Budget -> what was said when it was spent: everyone says the same, whatever calls in flight add to it."""

spending = Spending()
"""Of this process."""


@lru_cache(maxsize=256)
def listed_price(model: str) -> Price | None:
    """What the price table that litellm brings along says of ``model``; None: nothing. No network."""
    try:
        info = load_litellm().get_model_info(model)
    except Exception:  # a plain Exception is what litellm raises for a model that it does not list
        return None
    prompt, completion = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    if prompt is None or completion is None:
        return None
    return Price(input=prompt * 1e6, output=completion * 1e6)


def usage_of(response: Any) -> tuple[int, int]:
    """Prompt and completion tokens that the endpoint names; zeros if it names none."""
    usage = getattr(response, "usage", None)
    return int(getattr(usage, "prompt_tokens", 0) or 0), int(getattr(usage, "completion_tokens", 0) or 0)
