"""What is known of one task: the figures of `tau2-slime tasks`, of curation, and of data preparation's filters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime.secrets import described
from tau2_slime.tasks.order import Dependence, order_dependence
from tau2_slime.tasks.plays import NOTHING, TRANSFER, play_baseline, play_gold
from tau2_slime.world import domains, scoring

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


@dataclass(frozen=True)
class TaskFacts:
    """One task, and what plays without a model are paid for it."""

    task_id: str
    actions: int
    """Gold actions of both sides."""
    writes: int
    """Those whose tool changes a database."""
    tools: tuple[str, ...]
    """The gold tools, each once, in their order."""
    basis: tuple[str, ...]
    """What the reward is made of."""
    do_nothing: float | None
    """Reward of an agent that does nothing; None if τ² cannot score it."""
    transfer: float | None
    """Reward of one that transfers to a human at once."""
    gold: float | None
    """Reward of the gold actions; None if τ² cannot score them."""
    order: Dependence
    """On which order the end depends; empty: on none."""
    problem: str
    """Why the task cannot be played or scored, in one line; empty if it can."""

    @property
    def trivial(self) -> bool:
        """An agent that solves nothing is paid in full."""
        return any(reward is not None and reward >= SUCCESS for reward in (self.do_nothing, self.transfer))

    @property
    def gold_pays(self) -> bool:
        return self.gold is not None and self.gold >= SUCCESS

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "tools": list(self.tools), "basis": list(self.basis)}


async def facts_of(config: Tau2Config, task: Task, *, order: bool = True) -> TaskFacts:
    """Play ``task`` three times without a model and, with ``order``, its writes in other orders. Some milliseconds.

    Raises nothing for what is wrong with the task: that is `TaskFacts.problem`.
    """
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria is not None else None) or []
    rewards: dict[str, float | None] = {}
    gold, dependence, problem = None, "", ""
    if scoring.needs_judge(task) and not config.allow_llm_judge:
        problem = "an LLM judge grades it"
    try:
        if not problem:
            rewards = {kind: await play_baseline(config, task, kind) for kind in (NOTHING, TRANSFER)}
            played = await play_gold(config, task)
            gold = played.reward if played is not None else None
            if played is None:
                problem = "no agent can begin it"
            elif gold is None:
                problem = played.detail
            dependence = order_dependence(config, task) if order and not problem else ""
    except Exception as error:  # whatever a stranger's task makes of τ²: it is said of the task
        problem = str(error) if isinstance(error, ConfigError) else described(error)
    writes = domains.write_tools(config.domain)
    return TaskFacts(
        task_id=str(task.id),
        actions=len(actions),
        writes=sum(action.name in writes for action in actions),
        tools=tuple(dict.fromkeys(action.name for action in actions)),
        basis=tuple(sorted(str(basis.value) for basis in criteria.reward_basis)) if criteria is not None else (),
        do_nothing=rewards.get(NOTHING),
        transfer=rewards.get(TRANSFER),
        gold=gold,
        order=dependence,  # type: ignore[arg-type]
        problem=problem,
    )


def all_facts(config: Tau2Config, tasks: Iterable[Task], *, order: bool = True) -> Iterator[TaskFacts]:
    """`facts_of` each of ``tasks``, one after another, for callers without an event loop."""
    with asyncio.Runner() as runner:
        for task in tasks:
            yield runner.run(facts_of(config, task, order=order))
