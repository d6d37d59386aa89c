"""Opt-in reward shaping for training: partial credit for what τ² found right, and penalties.

The official reward stays what is reported (`raw_reward`) and what evaluation counts; the shaped value is only what the
trainer is given. `docs/reward_shaping.md` says what each part can be gamed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.outcome import SUCCESS

if TYPE_CHECKING:
    from tau2_slime.config.reward_shaping import RewardShaping
    from tau2_slime.episode.result import InteractionResult

_MALFORMED = ("invalid_json", "unclosed")


def shaped_reward(result: InteractionResult, shaping: RewardShaping) -> float:
    """What the trainer is given for ``result``, between ``-max_penalty`` and 1.

    A success (τ²'s reward of 1) is worth more than any other episode, whatever the weights. An episode that τ² cut off
    (limits, too many errors, an empty message) has no checks, so it earns no partial credit.

    Raises:
        ValueError: the episode was not scored: there is nothing to shape.
    """
    if result.reward is None:
        raise ValueError("an episode without a reward cannot be shaped")
    success = result.reward >= SUCCESS
    malformed = sum(result.stats.tool_calls.get(status, 0) for status in _MALFORMED)
    penalty = shaping.format_penalty * malformed
    if success:
        # Only here: a penalty on the turns of a failure would pay for giving up early.
        penalty += shaping.turn_penalty * result.stats.agent_turns
    earned = 1.0 if success else shaping.partial_credit * max(result.reward, met_share(result.reward_info, shaping))
    return earned - min(penalty, shaping.max_penalty)


def met_share(reward_info: Mapping[str, Any] | None, shaping: RewardShaping) -> float:
    """The weighted share, 0.0 to 1.0, of what τ² checked (its ``RewardInfo`` as plain data) and found right.

    A component that τ² did not check in this task takes no part, nor does its weight.
    """
    info = reward_info or {}
    db = info.get("db_check")
    parts = (
        (shaping.db, [bool(db["db_match"])] if db else []),
        (shaping.action, [bool(check["action_match"]) for check in info.get("action_checks") or ()]),
        (shaping.communicate, [bool(check["met"]) for check in info.get("communicate_checks") or ()]),
        (shaping.env_assertion, [bool(check["met"]) for check in info.get("env_assertions") or ()]),
    )
    checked = [(weight, sum(met) / len(met)) for weight, met in parts if met]
    total = sum(weight for weight, _ in checked)
    return sum(weight * share for weight, share in checked) / total if total else 0.0
