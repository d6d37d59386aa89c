"""Opt-in reward shaping for training: partial credit for what τ² found right, and penalties.

The official reward stays what is reported (`raw_reward`) and what evaluation counts; the shaped value is only what the
trainer is given. `docs/reward_shaping.md` says what each part can be gamed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tau2_slime.outcome import SUCCESS

if TYPE_CHECKING:
    from tau2_slime.outcome import InteractionResult

_MALFORMED = ("invalid_json", "unclosed")


class RewardShaping(BaseModel):
    """``tau2: {reward_shaping: {...}}``. An empty mapping changes nothing: every part is switched on by its number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    partial_credit: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """What a failed episode may earn at most, if everything that τ² checked but for a hair was right."""
    db: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the database check (all or nothing) in the partial credit."""
    action: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the share of gold actions that were called."""
    communicate: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the share of facts that were told to the user."""
    env_assertion: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Weight of the share of environment assertions that hold."""
    turn_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Taken off a success for each message of the agent."""
    format_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Taken off any episode for each tool call that could not be read (invalid JSON, unclosed tags)."""
    max_penalty: float = Field(default=0.5, ge=0, lt=1, allow_inf_nan=False)
    """What the penalties may take off at most, together."""

    @model_validator(mode="after")
    def _success_stays_on_top(self) -> RewardShaping:
        if self.partial_credit + self.max_penalty >= 1:
            raise ValueError(
                f"partial_credit ({self.partial_credit}) + max_penalty ({self.max_penalty}) must be less than 1, or a "
                "failed episode could be worth as much as a success"
            )
        if self.partial_credit and not (self.db or self.action or self.communicate or self.env_assertion):
            raise ValueError("partial_credit needs a weight above 0 among db, action, communicate, env_assertion")
        return self


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
