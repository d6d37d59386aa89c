"""Shaping through `generate`: training is given the shaped value, evaluation never is."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tau2_slime import generate_with_tau2
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.faults.conftest import GOLD, PATIENCE, Stage, stats
from tests.faults.servers import Move, answer, call, error

SHAPING = {"partial_credit": 0.3, "turn_penalty": 0.01, "format_penalty": 0.1}
BROKEN = "<tool_call>\n{broken\n</tool_call>"


async def shaped(
    stage: Stage, script: list[Move], *, evaluation: bool = False, name: str = "episode", **tau2: Any
) -> StandaloneSample:
    """One episode whose reward need not be τ²'s."""
    stage.router.script = script
    sample = stage.sample(name)
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


OWN = """
episodes, threads = [], []

def own_metric(result):
    import threading
    episodes.append(result.task_id)
    threads.append(threading.current_thread())
    return {"messages": len(result.messages)}

def own_part(result):
    episodes.append(result.task_id)
    return 0.25

def broken(result):
    raise RuntimeError("a bug of the user's")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "own_reward_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_reward_code")
    del sys.modules["own_reward_code"]


@pytest.mark.surprise
async def test_a_metric_and_a_reward_part_of_ones_own(stage: Stage, own: Any) -> None:
    """The gold call was made, and one too many: of four equal weights τ² gives one and a half, the own part a quarter."""
    parts = {"own_reward_code.own_part": 1.0, "own_reward_code.broken": 1.0}
    settings: dict[str, Any] = {
        "metrics": ["own_reward_code.own_metric"],
        "reward_shaping": {"partial_credit": 0.3, "parts": parts},
    }
    spoilt = [call("create_task", user_id="user_1", title="Another"), *GOLD]
    sample = await shaped(stage, spoilt, **settings)
    told = sample.metadata["tau2"]["telemetry"]
    assert told["custom/messages"] == len(stage.results[-1].messages)
    assert told["reward_part/own_reward_code.own_part"] == 0.25
    assert sample.reward == pytest.approx(0.3 * (1 + 0 + 0.25) / 3), "without the part that failed"
    assert sample.metadata["raw_reward"] == 0.0
    assert len(own.episodes) == 2 and own.threads[0] is not threading.current_thread(), (
        "once each, beside the event loop"
    )

    good = await shaped(stage, [*GOLD], name="good", **settings)
    assert good.reward == good.metadata["raw_reward"] == 1.0

    judged = await shaped(stage, spoilt, evaluation=True, name="judged", **settings)
    told = judged.metadata["tau2"]["telemetry"]
    assert judged.reward == 0.0 and "custom/messages" in told
    assert not [name for name in told if name.startswith("reward_part/")], "evaluation is never shaped"


async def test_an_episode_that_does_not_count_is_not_handed_over(stage: Stage, own: Any) -> None:
    stage.router.choose = lambda ask: error(400, "no")
    sample = await shaped(stage, [], metrics=["own_reward_code.own_metric"])
    assert sample.remove_sample and own.episodes == []


async def test_a_path_that_leads_nowhere_is_refused_before_the_policy_is_asked(stage: Stage) -> None:
    sample = await shaped(stage, [*GOLD], metrics=["own_reward_code.nothing"])
    assert sample.metadata["tau2"]["termination"] == "config_error"
    assert "no module 'own_reward_code'" in sample.metadata["tau2"]["detail"]
    assert stage.router.asks == []


async def test_without_it_the_reward_is_tau2s(stage: Stage) -> None:
    sample = await stage.play([answer(BROKEN), *GOLD])
    assert sample.reward == sample.metadata["raw_reward"] == 1.0


async def test_evaluation_is_never_shaped(stage: Stage) -> None:
    sample = await shaped(stage, [answer(BROKEN), *GOLD], evaluation=True, reward_shaping=SHAPING)
    assert sample.reward == sample.metadata["raw_reward"] == 1.0
