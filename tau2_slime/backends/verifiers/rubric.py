"""τ²'s reward as a verifiers v0 rubric. Its parts and the episode's counters are metrics of weight 0."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import verifiers as vf

from tau2_slime.backends.verifiers.results import episode_metrics
from tau2_slime.backends.verifiers.state_view import EPISODE_KEY
from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.outcome import Blame

METRICS = tuple(episode_metrics(None, vars(EpisodeStats()), Blame.AGENT))
"""Names of the metrics."""


def tau2_rubric() -> vf.Rubric:
    """Weight 1: τ²'s reward. Weight 0: everything in `METRICS`."""
    rubric = vf.Rubric(funcs=[tau2_reward], weights=[1.0])
    for name in METRICS:
        rubric.add_metric(_metric(name))
    return rubric


async def tau2_reward(state: vf.State) -> float:
    """τ²'s official reward, 0.0 to 1.0. An episode without a reward gives 0.0 here and has ``state["error"]``."""
    result = _result(state)
    return 0.0 if result is None or result.reward is None else result.reward


def _result(state: vf.State) -> InteractionResult | None:
    episode = state.get(EPISODE_KEY)
    return None if episode is None else episode.result


def _metric(name: str) -> Callable[[vf.State], Awaitable[float]]:
    async def metric(state: vf.State) -> float:
        result = _result(state)
        return 0.0 if result is None else episode_metrics(result.reward_info, vars(result.stats), result.blame)[name]

    metric.__name__ = name
    return metric
