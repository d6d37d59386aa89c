"""Where slime's and miles' own metrics go: their trackers, at the steps where they log themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from tau2_slime.slime_adapter.compat import loaded

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs

_STEPS = ("observability.metric_utils", "utils.metric_utils")
_TRACKERS = (
    *("observability.logging_utils", "utils.logging_utils"),
    *("utils.tracking_utils.tracking", "utils.tracking_utils"),  # miles
)
"""Where a function of slime's trackers is: in ``utils`` up to v0.3.1, in ``observability`` later."""


def log_scalars(
    args: SlimeArgs, metrics: Mapping[str, float], rollout_id: int, axis: Literal["rollout", "eval"]
) -> bool:
    """Hand ``metrics`` to slime's trackers at the step where slime itself logs ``axis``.

    False if slime's logging is not loaded.
    """
    steps, trackers = loaded(*_STEPS, having="compute_rollout_step"), loaded(*_TRACKERS, having="log")
    if steps is None or trackers is None:
        return False
    step = f"{axis}/step"
    trackers.log(args, {**metrics, step: steps.compute_rollout_step(args, rollout_id)}, step_key=step)
    return True


def log_table(
    args: SlimeArgs, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]], rollout_id: int
) -> bool:
    """Log a table to W&B at the step where slime logs a rollout. False if slime has no W&B run in this process.

    slime's own logging takes scalars, because it serves other trackers too.
    """
    steps, wandb = loaded(*_STEPS, having="compute_rollout_step"), sys.modules.get("wandb")
    if steps is None or wandb is None or getattr(wandb, "run", None) is None:
        return False
    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    wandb.log({name: table, "rollout/step": steps.compute_rollout_step(args, rollout_id)})
    return True
