"""What the processes of one run tell each other about the simulators: bills, spent budgets, refused keys, endpoints that are
out. So a budget is one budget, and a dead endpoint is found out once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tau2_slime.world.users import endpoints
from tau2_slime.world.users.spending import Account, spending, spent_budgets


@dataclass(frozen=True)
class News:
    """The state of one process, or of several; plain data that pickles. Equal news need not be told again."""

    accounts: dict[str, Account]
    spent: dict[float, str]
    """Budget -> the message that it is spent."""
    refused: dict[tuple[str, str | None], tuple[str, str]]
    """As `endpoints.refused_keys`."""
    endpoints: dict[str, endpoints.EndpointNews]

    @property
    def gist(self) -> tuple[object, ...]:
        """What changes only if something happened: without the seconds that pass by themselves."""
        changed = {address: told.changed for address, told in self.endpoints.items()}
        return self.accounts, self.spent, self.refused, changed


def news(*, without: str | None = None, own_bills: bool = False) -> News:
    """What this process knows.

    Args:
        without: leave out the bills of that process, because it is the one that is told.
        own_bills: only the bills of this process.
    """
    accounts = spending.own_accounts() if own_bills else spending.accounts(without=without)
    return News(accounts, spent_budgets(), endpoints.refused_keys(), endpoints.news())


def learn(process: str, told: News) -> None:
    """Take over what ``process`` knows. Its bills take the place of what it told before."""
    spending.learn(process, told.accounts)
    for budget, message in told.spent.items():
        if budget not in spent_budgets():
            spending.stop(budget, message)
    endpoints.learn_refused_keys(told.refused)
    for address, each in told.endpoints.items():
        endpoints.endpoint_of(address).learn(each)
