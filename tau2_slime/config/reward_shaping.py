"""Opt-in reward shaping for training, as it is configured; `slime_adapter.shaping` computes it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
