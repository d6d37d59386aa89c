"""Opt-in reward shaping for training, as it is configured; `slime_adapter.shaping` computes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tau2_slime.config.own_functions import RewardPartPath

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Relative to the other weights of the partial credit; 0 leaves the component out."""


class RewardShaping(BaseModel):
    """``tau2: {reward_shaping: {...}}``. An empty mapping changes nothing: each number switches its part on.

    The partial credit of a failed episode is ``partial_credit`` times a weighted mean, 0.0 to 1.0. Its components are τ²'s
    checks (``db``, ``action``, ``communicate``, ``env_assertion``) and the run's own `parts`. A component that does not
    apply to an episode takes no part in the mean, nor does its weight. So a failed episode earns at most ``partial_credit``,
    whatever the components say, and a success at least ``1 - max_penalty``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partial_credit: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """The most that a failed episode can earn: it gets this times the weighted mean of the components."""
    db: Weight = 1.0
    """Weight of the database check (all or nothing)."""
    action: Weight = 1.0
    """Weight of the share of gold actions that were called."""
    communicate: Weight = 1.0
    """Weight of the share of facts that were told to the user."""
    env_assertion: Weight = 1.0
    """Weight of the share of environment assertions that hold."""
    parts: dict[RewardPartPath, Weight] = Field(default_factory=dict)
    """Your own components: dotted path of a function of the finished episode -> weight, such as {my.module.my_part: 1.0}."""
    turn_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Taken off a success for each message of the agent."""
    format_penalty: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Taken off any episode for each tool call that could not be read (invalid JSON, unclosed tags)."""
    max_penalty: float = Field(default=0.5, ge=0, lt=1, allow_inf_nan=False)
    """The most that both penalties together can take off."""

    @model_validator(mode="after")
    def _success_stays_on_top(self) -> RewardShaping:
        if self.partial_credit + self.max_penalty >= 1:
            raise ValueError(
                f"partial_credit ({self.partial_credit}) + max_penalty ({self.max_penalty}) must be less than 1, or a "
                "failed episode could be worth as much as a success"
            )
        weights = (self.db, self.action, self.communicate, self.env_assertion, *self.parts.values())
        if self.partial_credit and not any(weights):
            raise ValueError(
                "partial_credit needs a weight above 0 among db, action, communicate, env_assertion, parts"
            )
        if self.parts and not self.partial_credit:
            raise ValueError("parts have no effect without partial_credit, which is 0: set it, for example to 0.3")
        return self
