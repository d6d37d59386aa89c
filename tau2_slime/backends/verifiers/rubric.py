"""τ²'s reward as a verifiers rubric; its parts and the episode's counters as metrics of weight 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import verifiers as vf

from tau2_slime.backends.verifiers.view import EPISODE
from tau2_slime.outcome import Blame, InteractionResult

PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION")
"""τ²'s `RewardType`s; the reward is the product of those that the task is graded on."""
COUNTERS = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors")


def tau2_rubric() -> Any:
    """Weight 1: τ²'s reward. Weight 0: each of its parts (1.0 where the task is not graded on it), counters, blame."""
    rubric = vf.Rubric(funcs=[tau2_reward], weights=[1.0])
    metrics = [_part(name) for name in PARTS] + [_counter(name) for name in COUNTERS] + [_blame(b) for b in Blame]
    for metric in metrics:
        rubric.add_metric(metric)
    return rubric


async def tau2_reward(state: Any) -> float:
    """τ²'s official reward; 0.0 beside ``state["error"]`` where there is none."""
    result = _result(state)
    return 0.0 if result is None or result.reward is None else result.reward


def _result(state: Any) -> InteractionResult | None:
    episode = state.get(EPISODE)
    return None if episode is None else episode.result


def _named(name: str, value: Callable[[InteractionResult], float]) -> Any:
    async def metric(state: Any) -> float:
        result = _result(state)
        return 0.0 if result is None else value(result)

    metric.__name__ = name
    return metric


def _part(name: str) -> Any:
    def value(result: InteractionResult) -> float:
        info = result.reward_info or {}
        breakdown = info.get("reward_breakdown") or {}
        return float(breakdown.get(name, 0.0 if not breakdown else 1.0))

    return _named(f"reward_{name.lower()}", value)


def _counter(name: str) -> Any:
    return _named(f"tau2_{name}", lambda result: float(getattr(result.stats, name)))


def _blame(blame: Blame) -> Any:
    return _named(f"blame_{blame}", lambda result: float(result.blame is blame))
