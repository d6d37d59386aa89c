"""Random calls in every domain: right ones at the wrong time, wrong types, unknown tools, from both sides.

τ²'s evaluator replays every call and refuses a conversation whose replay differs. So each episode that ended by itself
must have been scored: a failure here would be one that a policy could cause.
"""

from __future__ import annotations

import asyncio
import json
import random
from functools import cache
from typing import Any

import pytest

from tests.faults.conftest import Stage, Status, detail
from tests.faults.servers import FAREWELL, Ask, Move, UserMove, say, spell

ODD: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1.5,
    1e308,
    "",
    "\ud800",
    "\x00",
    "<|im_end|>",
    [],
    {},
    [[]],
    {"a": [None]},
    "9",
]


@cache
def _gold(domain: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(who, tool, arguments) of every gold action of the domain."""
    from tau2_slime.world import domains

    return [
        (action.requestor, action.name, action.arguments)
        for task in domains.tasks(domain, "base")
        for action in (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []
    ]


def _call(dice: random.Random, domain: str, who: str) -> tuple[str, dict[str, Any]]:
    pool = _gold(domain)
    _, name, arguments = dice.choice([call for call in pool if call[0] == who] or pool)
    arguments = dict(arguments)
    for key in [*arguments]:
        if dice.random() < 0.15:
            arguments[key] = dice.choice(ODD)
        if dice.random() < 0.05:
            del arguments[key]
    if dice.random() < 0.1:
        arguments[dice.choice(["tool_name", "requestor", "self", "extra"])] = dice.choice(ODD)
    return (name if dice.random() > 0.05 else dice.choice([name.upper(), "calculate", "think", "done"])), arguments


def _episode(domain: str, seed: int) -> tuple[list[Move], list[UserMove]]:
    dice = random.Random(f"{domain}/{seed}")
    moves: list[Move] = []
    for _ in range(dice.randint(1, 5)):
        calls = [spell(*_call(dice, domain, "assistant")) for _ in range(dice.choice([0, 1, 1, 1, 2, 3]))]
        moves.append(say("\n".join(calls) or "One moment."))
    users = [UserMove(content="Hello.")]
    if domain == "telecom":
        for _ in range(dice.randint(1, 3)):
            calls = [_call(dice, domain, "user") for _ in range(dice.choice([1, 1, 2]))]
            users.append(UserMove(calls=[(name, json.dumps(arguments)) for name, arguments in calls]))
        users.append(UserMove(content="What now?"))
    return [*moves, say(FAREWELL)], users


def _tasks(domain: str) -> list[Any]:
    """Without those for which τ²'s own evaluator raises: it looks up a task that only gold play creates."""
    from tau2_slime.world import domains

    return [
        task
        for task in domains.tasks(domain, "base")
        if not any(a.func_name == "assert_task_status" for a in task.evaluation_criteria.env_assertions or [])
    ]


@pytest.mark.parametrize(("domain", "episodes"), [("mock", 12), ("retail", 5), ("airline", 4), ("telecom", 10)])
async def test_every_episode_is_scored(stage: Stage, domain: str, episodes: int) -> None:
    tasks = _tasks(domain)
    for seed in range(episodes):
        moves, users = _episode(domain, seed)
        task = {"domain": domain, "task_split": "base", "task_id": tasks[seed * 7 % len(tasks)].id}
        room = {"rollout_max_context_len": 10**6, "sglang_context_length": 10**6}
        sample = await stage.play(moves, users=users, task=task, name=f"{domain} {seed}", args=room, max_errors=30)
        assert sample.status in (Status.COMPLETED, Status.TRUNCATED), (seed, detail(sample))
        assert stage.results[-1].reward is not None


async def test_episodes_do_not_see_each_other(stage: Stage) -> None:
    """Concurrent episodes of one task change their own world only: each gets what it gets alone."""

    def choose(ask: Ask) -> Move | None:
        moves, _ = _episode("retail", int(ask.key.split()[-1]))
        return moves[min(ask.ordinal, len(moves) - 1)]

    stage.router.choose = choose
    from tau2_slime.world import domains

    task = {"domain": "retail", "task_split": "base", "task_id": domains.tasks("retail", "base")[0].id}
    names = [f"{kind} {seed}" for kind in ("alone", "together") for seed in range(3)]
    alone = [await stage.play(task=task, name=name) for name in names[:3]]
    together = await asyncio.gather(*(stage.play(task=task, name=name) for name in names[3:]))
    assert [s.tokens for s in alone] == [s.tokens for s in together]
    assert [s.reward for s in alone] == [s.reward for s in together]
