"""Reward shaping: off by default, never in evaluation, and success stays on top whatever the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Blame, Termination
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample
from tau2_slime.slime_adapter.shaping import met_share, shaped_reward

ROOT = Path(__file__).resolve().parents[1]


def result(reward: float | None, info: dict[str, Any] | None = None, **stats: Any) -> InteractionResult:
    names = ("domain", "task_split", "task_id", "agent_type", "user_model")
    return InteractionResult(
        **dict.fromkeys(names, "x"),
        termination=Termination.USER_STOP,
        blame=Blame.AGENT,
        reward=reward,
        reward_info=info,
        stats=EpisodeStats(**stats),
    )


def checks(db: bool | None = None, action: str = "", communicate: str = "", env_assertion: str = "") -> dict[str, Any]:
    """τ²'s `RewardInfo` as plain data; a string of + and - for each list of checks."""
    info: dict[str, Any] = {} if db is None else {"db_check": {"db_match": db, "db_reward": float(db)}}
    if action:
        info["action_checks"] = [{"action_match": c == "+", "action_reward": float(c == "+")} for c in action]
    if communicate:
        info["communicate_checks"] = [{"met": c == "+", "info": "1"} for c in communicate]
    if env_assertion:
        info["env_assertions"] = [{"met": c == "+", "reward": float(c == "+")} for c in env_assertion]
    return info


def test_an_empty_mapping_changes_nothing() -> None:
    for reward in (0.0, 1.0):
        episode = result(reward, checks(db=True, action="+-"), agent_turns=20, tool_calls={"invalid_json": 3})
        assert shaped_reward(episode, RewardShaping()) == reward


@pytest.mark.parametrize(
    ("info", "weights", "share"),
    [
        (checks(db=True, action="++--"), {}, 0.75),
        (checks(db=False, action="+++-", communicate="+-"), {}, (0 + 0.75 + 0.5) / 3),
        (checks(db=False, action="+++-"), {"db": 0}, 0.75),
        (checks(db=False, action="+"), {"db": 3}, 0.25),
        (checks(env_assertion="+-", action="--"), {"action": 0}, 0.5),
        (checks(db=True), {"db": 0, "action": 1}, 0.0),
        ({"db_check": None, "action_checks": None, "env_assertions": []}, {}, 0.0),
        ({}, {}, 0.0),
        (None, {}, 0.0),
    ],
)
def test_partial_credit_is_the_weighted_share_of_what_was_checked(
    info: dict[str, Any] | None, weights: dict[str, float], share: float
) -> None:
    shaping = RewardShaping(partial_credit=0.4, **weights)
    assert met_share(info, shaping) == pytest.approx(share)
    assert shaped_reward(result(0.0, info), shaping) == pytest.approx(0.4 * share)
    assert shaped_reward(result(1.0, info), shaping) == 1.0


@pytest.mark.parametrize("reward", [0.5, 0.75, 0.999])
def test_most_of_a_reward_is_shaped_as_a_failure(reward: float) -> None:
    shaping = RewardShaping(partial_credit=0.4, turn_penalty=0.01)
    assert shaped_reward(result(reward, checks(db=False), agent_turns=10), shaping) == pytest.approx(0.4 * reward)
    assert shaped_reward(result(reward, checks(db=True)), shaping) == pytest.approx(0.4), "the checks are worth more"


def test_a_shorter_success_is_better_but_a_shorter_failure_is_not() -> None:
    shaping = RewardShaping(turn_penalty=0.01)
    assert shaped_reward(result(1.0, agent_turns=10), shaping) == pytest.approx(0.9)
    assert shaped_reward(result(1.0, agent_turns=500), shaping) == pytest.approx(0.5), "max_penalty"
    assert (
        shaped_reward(result(0.0, agent_turns=1), shaping) == shaped_reward(result(0.0, agent_turns=30), shaping) == 0
    )


def test_calls_that_cannot_be_read_cost_and_wrong_calls_do_not() -> None:
    shaping = RewardShaping(format_penalty=0.1)
    calls = {"ok": 5, "unknown_tool": 1, "bad_arguments": 1, "invalid_json": 2, "unclosed": 1}
    assert shaped_reward(result(1.0, tool_calls=calls), shaping) == pytest.approx(0.7)
    assert shaped_reward(result(0.0, tool_calls=calls), shaping) == pytest.approx(-0.3)


def test_a_part_of_ones_own_is_one_component_among_tau2s_checks() -> None:
    shaping = RewardShaping(partial_credit=0.4, parts={"math.sqrt": 2.0, "math.floor": 1.0})
    info = checks(db=False, action="+-")
    assert met_share(info, shaping) == pytest.approx((0 + 0.5) / 2), "no part applies"
    assert met_share(info, shaping, {"math.sqrt": 0.75}) == pytest.approx((0 + 0.5 + 2 * 0.75) / 4)
    assert met_share(None, shaping, {"math.sqrt": 0.75, "math.floor": 0.0}) == pytest.approx(2 * 0.75 / 3)
    failure = result(0.0, info)
    failure.reward_parts = {"math.sqrt": 0.75}
    assert shaped_reward(failure, shaping) == pytest.approx(0.4 * 0.5)
    success = result(1.0, checks(db=True))
    success.reward_parts = {"math.sqrt": 0.0, "math.floor": 0.0}
    assert shaped_reward(success, shaping) == 1.0, "a success earns 1, whatever they say"
    only = RewardShaping(partial_credit=0.4, db=0, action=0, communicate=0, env_assertion=0, parts={"math.sqrt": 1.0})
    assert shaped_reward(failure, only) == pytest.approx(0.4 * 0.75)


weights = st.floats(0, 10)
own = st.dictionaries(st.sampled_from(["math.sqrt", "math.floor"]), st.floats(0, 1))
marks = st.text("+-", max_size=4)


@given(
    st.builds(dict, partial_credit=st.floats(0, 0.99), max_penalty=st.floats(0, 0.99), db=weights, action=weights,
              communicate=weights, env_assertion=weights, turn_penalty=weights, format_penalty=weights),
    st.builds(checks, st.sampled_from([None, True, False]), marks, marks, marks),
    st.integers(0, 200), st.integers(0, 50), st.integers(0, 200), st.integers(0, 50),
    st.dictionaries(st.sampled_from(["math.sqrt", "math.floor"]), weights), own, own,
)  # fmt: skip
def test_no_failure_is_worth_as_much_as_any_success(
    values: dict[str, Any],
    info: dict[str, Any],
    turns: int,
    broken: int,
    other_turns: int,
    other_broken: int,
    parts: dict[str, float],
    of_success: dict[str, float],
    of_failure: dict[str, float],
) -> None:
    names = ("db", "action", "communicate", "env_assertion")
    try:
        shaping = RewardShaping(**values, parts=parts)
    except ValidationError:
        assert (
            values["partial_credit"] + values["max_penalty"] >= 1
            or not any([*(values[name] for name in names), *parts.values()])
            or (parts and not values["partial_credit"])
        )
        return
    good = result(1.0, info, agent_turns=turns, tool_calls={"unclosed": broken})
    bad = result(0.0, info, agent_turns=other_turns, tool_calls={"unclosed": other_broken})
    good.reward_parts, bad.reward_parts = of_success, of_failure
    success, failure = shaped_reward(good, shaping), shaped_reward(bad, shaping)
    assert failure < success <= 1.0
    assert failure >= -shaping.max_penalty


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"partial_credit": 0.6}, "must be less than 1"),
        ({"partial_credit": 0.2, "max_penalty": 0.8}, "must be less than 1"),
        ({"partial_credit": 1.0, "max_penalty": 0}, "partial_credit"),
        ({"partial_credit": -0.1}, "partial_credit"),
        ({"turn_penalty": -1}, "turn_penalty"),
        ({"db": float("nan")}, "db"),
        ({"format_penalty": float("inf")}, "format_penalty"),
        ({"partial_credits": 0.1}, "partial_credits"),
        ({"partial_credit": 0.1, "db": 0, "action": 0, "communicate": 0, "env_assertion": 0}, "a weight above 0"),
    ],
)
def test_settings_that_would_turn_the_order_round_are_refused_by_name(values: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as told:
        Tau2Config.resolve({"reward_shaping": values}, environ={})
    assert "tau2.reward_shaping" in str(told.value)


def test_it_can_be_set_like_every_other_key() -> None:
    assert Tau2Config.resolve({}, environ={}).reward_shaping is None
    by_variable = Tau2Config.resolve({}, environ={"TAU2_REWARD_SHAPING": '{"turn_penalty": 0.01}'})
    assert by_variable.reward_shaping == RewardShaping(turn_penalty=0.01)
    with pytest.raises(ConfigError, match="TAU2_REWARD_SHAPING must hold JSON"):
        Tau2Config.resolve({}, environ={"TAU2_REWARD_SHAPING": "yes"})


def test_the_official_reward_is_what_is_reported() -> None:
    shaping = RewardShaping(partial_credit=0.3, turn_penalty=0.01)
    good = fill_sample(StandaloneSample(), result(1.0, checks(db=True), agent_turns=10), shaping=shaping)
    bad = fill_sample(StandaloneSample(), result(0.0, checks(db=False, action="+-")), shaping=shaping)
    assert (good.reward, good.metadata["raw_reward"], good.metadata["tau2"]["official_reward"]) == (0.9, 1.0, 1.0)
    assert bad.reward == pytest.approx(0.3 * 0.25)
    assert (bad.metadata["raw_reward"], bad.metadata["tau2"]["official_reward"]) == (0.0, 0.0)


def test_what_failed_for_others_reasons_is_not_shaped() -> None:
    shaping = RewardShaping(partial_credit=0.3, format_penalty=0.1)
    lost = result(None, checks(db=True), tool_calls={"unclosed": 2})
    lost.termination, lost.blame = Termination.USER_ERROR, Blame.USER
    assert fill_sample(StandaloneSample(), lost, shaping=shaping).reward == 0.0
    with pytest.raises(ValueError, match="cannot be shaped"):
        shaped_reward(lost, shaping)
