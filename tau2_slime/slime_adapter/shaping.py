"""Opt-in reward shaping for training: partial credit for what was done right in a failed episode, and penalties.

The official reward stays what is reported (`raw_reward`) and what evaluation counts; only the trainer is given the shaped
value. `docs/reward_shaping.md` says how a policy can exploit each part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.outcome import SUCCESS
from tau2_slime.tokens.calls.types import CallStatus

if TYPE_CHECKING:
    from tau2_slime.config.reward_shaping import RewardShaping
    from tau2_slime.episode.result import InteractionResult

_UNREADABLE = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


def shaped_reward(result: InteractionResult, shaping: RewardShaping) -> float:
    """The reward that the trainer is given for ``result``, between ``-max_penalty`` and 1.

    A success (τ²'s reward of 1) is worth more than any other episode, whatever the weights. An episode that τ² cut off
    (limits, too many errors, an empty message) has no checks of τ², so only the run's own parts can earn it partial credit.

    Raises:
        ValueError: the episode was not scored: there is nothing to shape.
    """
    if result.reward is None:
        raise ValueError("an episode without a reward cannot be shaped")
    success = result.reward >= SUCCESS
    unreadable = sum(result.stats.tool_calls.get(status, 0) for status in _UNREADABLE)
    penalty = shaping.format_penalty * unreadable
    if success:
        # Only here: a penalty on the turns of a failure would pay for giving up early.
        penalty += shaping.turn_penalty * result.stats.agent_turns
    share = met_share(result.reward_info, shaping, result.reward_parts)
    earned = 1.0 if success else shaping.partial_credit * max(result.reward, share)
    return earned - min(penalty, shaping.max_penalty)


def met_share(
    reward_info: Mapping[str, Any] | None, shaping: RewardShaping, parts: Mapping[str, float] | None = None
) -> float:
    """The weighted mean, 0.0 to 1.0, of the components of the partial credit; 0.0 if none applies.

    Args:
        reward_info: τ²'s ``RewardInfo`` as plain data. A check that τ² did not make in this task takes no part.
        shaping: the weights.
        parts: dotted path -> value, 0.0 to 1.0, of the run's own parts that apply to this episode.
    """
    info, own = reward_info or {}, parts or {}
    db = info.get("db_check")
    checks = (
        (shaping.db, [bool(db["db_match"])] if db else []),
        (shaping.action, [bool(check["action_match"]) for check in info.get("action_checks") or ()]),
        (shaping.communicate, [bool(check["met"]) for check in info.get("communicate_checks") or ()]),
        (shaping.env_assertion, [bool(check["met"]) for check in info.get("env_assertions") or ()]),
    )
    components = [(weight, sum(met) / len(met)) for weight, met in checks if met]
    components += [(weight, own[path]) for path, weight in shaping.parts.items() if path in own]
    total = sum(weight for weight, _ in components)
    return sum(weight * share for weight, share in components) / total if total else 0.0
