"""What the simulators of this process have cost so far: tokens, seconds and dollars of each, and the limit on them.

Samples carry their own share, but a dynamic filter drops samples, and their bill stays. Where several processes play one
run, each is told the others' bills too (`sharing`).
"""

from __future__ import annotations

import threading
from dataclasses import astuple, dataclass, replace
from functools import lru_cache

from tau2_slime.config.simulators import Price
from tau2_slime.errors import BudgetSpent
from tau2_slime.runtime import run_stop
from tau2_slime.world.litellm_client import load_litellm


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
    """Of the answered calls, from request to answer, without queues and pauses."""
    dollars: float = 0.0


class Spending:
    """Accounts by simulator; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._elsewhere: dict[str, dict[str, Account]] = {}
        """Another process -> its accounts."""

    def answered(self, name: str, seconds: float, prompt_tokens: int, completion_tokens: int, dollars: float) -> None:
        """Book an answered call of the simulator ``name``."""
        with self._lock:
            account = self._accounts.setdefault(name, Account())
            account.calls += 1
            account.seconds += seconds
            account.prompt_tokens += prompt_tokens
            account.completion_tokens += completion_tokens
            account.dollars += dollars

    def failed(self, name: str) -> None:
        """Book a call of the simulator ``name`` that was not answered."""
        with self._lock:
            self._accounts.setdefault(name, Account()).failed += 1

    @property
    def dollars(self) -> float:
        """Of all simulators together."""
        with self._lock:
            books = (self._accounts, *self._elsewhere.values())
            return sum(account.dollars for book in books for account in book.values())

    def accounts(self, *, without: str | None = None) -> dict[str, Account]:
        """The sums of this process and of those that `learn` was told of. ``without``: leave that one out."""
        with self._lock:
            books = [self._accounts, *(book for name, book in self._elsewhere.items() if name != without)]
            out: dict[str, Account] = {}
            for name, account in (entry for book in books for entry in book.items()):
                out[name] = _sum(out.get(name, Account()), account)
            return out

    def own_accounts(self) -> dict[str, Account]:
        """Those of this process alone: a copy."""
        with self._lock:
            return {name: replace(account) for name, account in self._accounts.items()}

    def learn(self, process: str, accounts: dict[str, Account]) -> None:
        """Take over the books of another process, in the place of what it told before."""
        with self._lock:
            self._elsewhere[process] = accounts

    def check(self, budget: float | None) -> None:
        """Stop the run once ``budget`` dollars are spent.

        Raises:
            BudgetSpent: they are.
        """
        if budget is None or self.dollars < budget:
            return
        shares = ", ".join(f"{name} ${a.dollars:.2f}" for name, a in sorted(self.accounts().items()) if a.dollars)
        message = f"the user simulators have cost the user_budget of ${budget:g} ({shares}); raise it to go on"
        raise BudgetSpent(self.stop(budget, message))

    def stop(self, budget: float, message: str) -> str:
        """Stop the run because ``budget`` is spent; the message is the first one that said so."""
        message = _messages.setdefault(budget, message)
        run_stop.stop_run(message, still=lambda: self.dollars >= budget)
        return message


def _sum(one: Account, other: Account) -> Account:
    return Account(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


_messages: dict[float, str] = {}
"""Budget -> the message when it was first spent: everyone repeats it, whatever calls in flight add to the bill."""


def spent_budgets() -> dict[float, str]:
    """Budget -> the message that it is spent: a copy."""
    return dict(_messages)


spending = Spending()
"""Of this process."""


@lru_cache(maxsize=256)
def listed_price(model: str) -> Price | None:
    """What the price table that litellm brings along says of ``model``; None: nothing. No network."""
    try:
        info = load_litellm().get_model_info(model)
    except Exception as error:  # litellm raises a plain Exception for a model that it does not list
        if "isn't mapped" not in str(error):
            raise
        return None
    prompt, completion = info.get("input_cost_per_token"), info.get("output_cost_per_token")
    if prompt is None or completion is None:
        return None
    return Price(input=prompt * 1e6, output=completion * 1e6)


def usage_of(response: object) -> tuple[int, int]:
    """Prompt and completion tokens of an answer (litellm's or a `Completion`); zeros if it names none."""
    usage = getattr(response, "usage", None)
    return int(getattr(usage, "prompt_tokens", 0) or 0), int(getattr(usage, "completion_tokens", 0) or 0)
