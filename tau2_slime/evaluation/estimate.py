"""What a plan would take, before anything is asked: episodes, calls, and dollars as far as prices are known.

Estimated from the tasks' gold actions, with a few messages of each side around them. A call's prompt grows with the
conversation. The numbers below are round on purpose: this is for deciding whether to press Enter, not for a budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.episode.users import PlayedBy, user_role
from tau2_slime.world import domains

if TYPE_CHECKING:
    from rich.table import Table

    from tau2_slime.evaluation.plan.datasets import Dataset, Plan
    from tau2_slime.evaluation.runner.budget import Budget

TEXTS = 5
"""Messages of each side beside tool calls."""
PROMPT, GROWTH, ANSWER = 6000, 150, 120
"""Tokens of the agent's first prompt; that a turn adds to the next prompt; that one call answers."""
USER_PROMPT = 1500
"""Tokens of the simulator's guidelines and scenario."""
CALLS_OF = {"llm": 1.0, "react": 1.0, "rules": 1.1, "verify": 2.3, "reflection": 2.3}
"""User strategy -> calls of a model for one message, when few drafts are refused."""


def calls(dataset: Dataset) -> tuple[int, int]:
    """(calls of the policy, calls of the user model) of one attempt at each task of ``dataset``."""
    agent = user = 0
    for item in dataset.items:
        task = domains.find_task(item.config.domain, item.config.task_split, task_id=item.task_id)
        actions = (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []
        own = sum(action.requestor == "user" for action in actions)
        agent += TEXTS + len(actions) - own
        user += TEXTS + own
    role = user_role(dataset.config, dataset.config.user_model)
    if role.played_by not in (PlayedBy.MODEL, PlayedBy.OWN_CLASS):
        return agent, 0
    return agent, round(user * CALLS_OF[role.strategy])


def dollars(number: int, episodes: int, prompt: int, price: tuple[float, float] | None) -> float | None:
    """US dollars of ``number`` calls in ``episodes`` conversations; None if ``price``, of a token, is not known."""
    if price is None:
        return None
    each = number / max(1, episodes)
    return number * ((prompt + GROWTH * each / 2) * price[0] + ANSWER * price[1])


def plan_table(plan: Plan, paid: Sequence[tuple[str, bool]], budget: Budget) -> Table:
    """One row a dataset. ``paid``: the policy's models that cost money (name, own endpoint)."""
    from rich.table import Table
    from rich.text import Text

    from tau2_slime.runtime.text import shown

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("dataset", "tasks", "attempts", "agent", "user", "policy calls", "user calls", "dollars"):
        table.add_column(name, justify="left" if name in ("dataset", "agent", "user") else "right")
    for dataset in plan.datasets:
        config = dataset.config
        agent, user = (count * dataset.attempts for count in calls(dataset))
        episodes = len(dataset.items) * dataset.attempts
        parts = [dollars(agent, episodes, PROMPT, budget.price(model, own=own)) for model, own in paid]
        if user:
            simulator = config.simulator(config.user_model)
            price = budget.price(simulator.model, own=simulator.base_url is not None)
            parts.append(dollars(user, episodes, USER_PROMPT, price))
        total = None if None in parts else sum(part for part in parts if part is not None)
        role = user_role(config, config.user_model)
        table.add_row(
            Text(shown(dataset.name)),
            str(len(dataset.items)),
            str(dataset.attempts),
            f"{config.agent_type}, {config.agent_strategy}",
            Text(shown(role.label) + ("" if role.strategy == "llm" else f", {role.strategy}")),
            str(agent),
            str(user),
            "unknown" if total is None else f"{total:.2f}",
        )
    return table
