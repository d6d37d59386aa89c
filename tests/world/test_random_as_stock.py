"""Random tool calls in 32 worlds at once, interleaved: each of them is τ²'s own environment, and the base stays as it is.

500 sequences a domain here, 10,000 with `make test-nightly`.
"""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import parity_play as play
from tests.world.call_strategies import sequence
from tests.world.twins import DOMAINS, NIGHTLY, Player, Twin, same, stock_reward

AT_ONCE = 32
SEQUENCES = 10_000 if NIGHTLY else 500
SCORED_OF_32 = {"airline": 1, "retail": 2, "telecom": 32, "mock": 32, "banking_knowledge": 4}


@pytest.mark.timeout(20_000)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("domain", DOMAINS)
def test_random_calls_in_worlds_at_once(domain: str) -> None:
    twin = Twin(domain)
    counts = {"calls": 0, "errors": 0, "rewards": 0}

    @settings(
        max_examples=-(-SEQUENCES // AT_ONCE),
        deadline=None,
        database=None,
        derandomize=not NIGHTLY,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), st.integers(0, 2**32))
    def run(data: st.DataObject, seed: int) -> None:
        plans = [data.draw(sequence(domain)) for _ in range(AT_ONCE)]
        players = [Player(domain, play.without_judge(task)) for task, _ in plans]
        answers: list[list[Any]] = [[] for _ in plans]
        order = [number for number, (_, calls) in enumerate(plans) for _ in calls]
        random.Random(seed).shuffle(order)
        before = copy.deepcopy(plans)
        for number in order:
            answers[number].append(players[number].call(plans[number][1][len(answers[number])]))
        assert repr(plans) == repr(before), "a tool changed what it was given"
        for number, ((task, calls), player) in enumerate(zip(plans, players, strict=True)):
            twin.begin(task)
            for call, answer in zip(calls, answers[number], strict=True):
                if not player.rejected:
                    same(answer, twin.call(call))
                counts["calls"] += 1
                counts["errors"] += answer.error
            if not player.invented():
                twin.compare(player)
            if number < SCORED_OF_32[domain]:
                expected = stock_reward(player)
                assert player.reward() == expected, (task.id, calls)
                counts["rewards"] += isinstance(expected, dict) and expected["reward"] == 1.0
        twin.check_untouched()

    run()
    assert 0.05 < counts["errors"] / counts["calls"] < 0.95, counts
    print(f"\n{domain}: {counts}")
