"""What both of verifiers' doors report: an episode as plain data, its metrics, and the score of an evaluation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeAlias

from tau2_slime.episode.result import InteractionResult
from tau2_slime.outcome import Blame

RECORD_KEY = "tau2"
"""Where a rollout keeps its `episode_record`: in v0's ``state``, in v1's ``trace.info``."""

REWARD_PARTS = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE", "NL_ASSERTION")
"""τ²'s `RewardType`s. The reward is the product of those that the task is graded on."""
COUNTERS = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors")
"""Fields of `EpisodeStats` that become metrics."""

Evaluation: TypeAlias = dict[str, Any]
"""What `evaluate` returns: ``outputs``, and the keys of `evaluation_score`."""


def episode_record(result: InteractionResult) -> dict[str, Any]:
    """`InteractionResult.to_dict` without tokens, as JSON data, because files and servers carry nothing else."""
    record: dict[str, Any] = json.loads(result.to_json(tokens=False))
    return record


def episode_metrics(reward_info: Mapping[str, Any] | None, stats: Mapping[str, Any], blame: str) -> dict[str, float]:
    """An episode's metrics: ``reward_<part>`` (1.0 where the task is not graded on it), ``tau2_<counter>``, ``blame_<who>``.

    Args:
        reward_info: τ²'s `RewardInfo` as plain data; without it every part of the reward is 0.0.
        stats: `EpisodeStats` as a mapping.
        blame: a value of `Blame`.
    """
    breakdown = (reward_info or {}).get("reward_breakdown") or {}
    not_graded = 1.0 if breakdown else 0.0
    metrics = {f"reward_{part.lower()}": float(breakdown.get(part, not_graded)) for part in REWARD_PARTS}
    metrics |= {f"tau2_{name}": float(stats[name]) for name in COUNTERS}
    return metrics | {f"blame_{name}": float(blame == name) for name in Blame}


def evaluation_score(rewards: Sequence[float], rollouts: int) -> Evaluation:
    """``score``: the mean of ``rewards`` (None if there are none); ``completed``, ``failed``: numbers of rollouts.

    ``rewards``: of the rollouts that count. A rollout without a reward has failed and is never a 0.
    """
    return {
        "score": fmean(rewards) if rewards else None,
        "completed": len(rewards),
        "failed": rollouts - len(rewards),
    }


def run_or_return(work: Coroutine[Any, Any, Evaluation]) -> Evaluation | Coroutine[Any, Any, Evaluation]:
    """``work`` itself where an event loop runs, to be awaited; else its result."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    return work
