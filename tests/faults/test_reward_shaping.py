"""Shaping through `generate`: training is given the shaped value, evaluation never is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tau2_slime import generate_with_tau2
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.faults.conftest import GOLD, PATIENCE, Stage, stats
from tests.faults.servers import Move, answer, call

SHAPING = {"partial_credit": 0.3, "turn_penalty": 0.01, "format_penalty": 0.1}
BROKEN = "<tool_call>\n{broken\n</tool_call>"


async def shaped(stage: Stage, script: list[Move], *, evaluation: bool = False, **tau2: Any) -> StandaloneSample:
    """One episode whose reward need not be τ²'s."""
    stage.router.script = script
    sample = stage.sample()
    play = generate_with_tau2.generate(stage.args(**tau2), sample, {"max_new_tokens": 512}, evaluation)
    await asyncio.wait_for(play, PATIENCE)
    return sample


async def test_training_gets_the_shaped_value_and_reports_the_official_one(stage: Stage) -> None:
    sample = await shaped(stage, [answer(BROKEN), *GOLD], reward_shaping=SHAPING)
    turns = stats(sample)["agent_turns"]
    assert sample.reward == pytest.approx(1 - 0.1 - 0.01 * turns)
    assert sample.metadata["raw_reward"] == sample.metadata["tau2"]["official_reward"] == 1.0


async def test_a_failure_is_given_its_share_of_what_tau2_found_right(stage: Stage) -> None:
    """The gold call was made, and one too many: the action is right, the database is not."""
    spoilt = [call("create_task", user_id="user_1", title="Another"), *GOLD]
    sample = await shaped(stage, spoilt, reward_shaping=SHAPING)
    assert sample.reward == pytest.approx(0.3 * (1 + 0) / 2)
    assert sample.metadata["raw_reward"] == 0.0


async def test_without_it_the_reward_is_tau2s(stage: Stage) -> None:
    sample = await stage.play([answer(BROKEN), *GOLD])
    assert sample.reward == sample.metadata["raw_reward"] == 1.0


async def test_evaluation_is_never_shaped(stage: Stage) -> None:
    sample = await shaped(stage, [answer(BROKEN), *GOLD], evaluation=True, reward_shaping=SHAPING)
    assert sample.reward == sample.metadata["raw_reward"] == 1.0
