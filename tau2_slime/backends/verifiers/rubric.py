"""τ²'s reward as a verifiers rubric; its parts and the episode's counters as metrics of weight 0."""

from __future__ import annotations

from typing import Any

import verifiers as vf

from tau2_slime.backends.verifiers.settings import figures
from tau2_slime.backends.verifiers.view import EPISODE
from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.outcome import Blame

NAMES = tuple(figures(None, vars(EpisodeStats()), Blame.AGENT))


def tau2_rubric() -> Any:
    """Weight 1: τ²'s reward. Weight 0: each of its parts (1.0 where the task is not graded on it), counters, blame."""
    rubric = vf.Rubric(funcs=[tau2_reward], weights=[1.0])
    for name in NAMES:
        rubric.add_metric(_metric(name))
    return rubric


async def tau2_reward(state: Any) -> float:
    """τ²'s official reward; 0.0 beside ``state["error"]`` where there is none."""
    result = _result(state)
    return 0.0 if result is None or result.reward is None else result.reward


def _result(state: Any) -> InteractionResult | None:
    episode = state.get(EPISODE)
    return None if episode is None else episode.result


def _metric(name: str) -> Any:
    async def metric(state: Any) -> float:
        result = _result(state)
        return 0.0 if result is None else figures(result.reward_info, vars(result.stats), result.blame)[name]

    metric.__name__ = name
    return metric
