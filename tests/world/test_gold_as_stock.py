"""Gold trajectories: the same answers, database hashes and rewards as τ²'s own environment and evaluator.

In CI every task's answers and database, and the rewards of a share; `make test-nightly`: everything of every split.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tau2_slime.world import domains
from tau2_slime.world.environment import World
from tests import parity_play as play
from tests.world.twins import DOMAINS, NIGHTLY, Player, Twin, gold_calls, same, stock_reward, why_replay_needed

REWARDS = {"airline": 6, "retail": 12, "telecom": 200, "mock": 100, "banking_knowledge": 12}
"""Tasks of a domain whose rewards are compared in CI; τ² takes a second for an airline one."""
PLAYED = {"telecom": 600}


def chosen(tasks: list[Any], count: int | None) -> list[Any]:
    if NIGHTLY or count is None or count >= len(tasks):
        return tasks
    return random.Random(0).sample(tasks, count)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("domain", DOMAINS)
def test_gold_play_of_every_task(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    twin = Twin(domain)
    tasks = chosen([play.without_judge(task) for task in domains._all_tasks(domain)], PLAYED.get(domain))
    scored = {task.id for task in chosen(tasks, REWARDS[domain])}
    for task in tasks:
        player = Player(domain, task)
        twin.begin(task)
        calls = gold_calls(task)
        for call in calls:
            same(player.call(call), twin.call(call))
        if not player.invented():
            twin.compare(player)
        if task.id in scored:
            info = task.evaluation_criteria.communicate_info if task.evaluation_criteria else None
            player.say(" ".join(["Done.", *(info or [])]))
            assert why_replay_needed(player) is None, "τ² must replay it"
            expected = stock_reward(player)
            assert player.reward() == expected, task.id
            assert player.reward() == expected, f"{task.id}: with the gold end state known"
    assert World(domain, "base", tasks[0]).quick
    left = [r.getMessage() for r in caplog.records if r.name.startswith("tau2_slime")]
    # Of all tasks, one of mock's updates the whole of a shared database.
    assert not [text for text in left if "update_task_with_initialization_data" not in text], "a fast path was left"
    twin.check_untouched()


@pytest.mark.parametrize("domain", ["mock", "telecom"])
def test_gold_play_alone(domain: str) -> None:
    twin = Twin(domain)
    tasks = [task for task in domains.tasks(domain, "base") if task.ticket is not None]
    for task in chosen(tasks, 20):
        player = Player(domain, task, solo=True)
        twin.begin(task, solo=True)
        for call in gold_calls(task, solo=True):
            same(player.call(call), twin.call(call))
        twin.compare(player)
        assert player.reward() == stock_reward(player), task.id
