"""Samples as slime hands them to the hooks: `StandaloneSample`s, filled as `fill_sample` fills them or in a few words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tau2_slime.episode.result import EpisodeStats, InteractionResult
from tau2_slime.outcome import Termination, blame_for
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample
from tau2_slime.tokens.ledger import TokenLedger


def played(
    reward: float | None = 1.0,
    *,
    task: str = "t0",
    domain: str = "retail",
    user: str = "openai/a",
    termination: Termination = Termination.USER_STOP,
    versions: tuple[str, ...] = ("1",),
    group: int | None = None,
    row: dict[str, Any] | None = None,
    **stats: Any,
) -> StandaloneSample:
    """One finished episode: 4 prompt tokens, 3 sampled and 2 of context a weight version."""
    ledger = TokenLedger([1, 2, 3, 4])
    for version in versions:
        ledger.append_sampled([5, 6, 7], [-0.1, -0.2, -0.3], version)
        ledger.append_context([8, 9])
    counters = EpisodeStats(**{"agent_turns": 3, "user_turns": 2, **stats})
    blame = blame_for(termination, agent_turns=counters.agent_turns)
    facts = {"domain": domain, "task_split": "test", "task_id": task, "agent_type": "llm", "user_model": user}
    result = InteractionResult(
        **facts, termination=termination, blame=blame, reward=reward, ledger=ledger, stats=counters
    )
    sample = StandaloneSample(group_index=group, prompt=task, metadata=dict(row or {"domain": domain, "task_id": task}))
    return fill_sample(sample, result)


def failed(termination: Termination = Termination.USER_ERROR, **known: Any) -> StandaloneSample:
    return played(None, termination=termination, **known)


def slime_args(**changes: Any) -> SimpleNamespace:
    """The arguments that the hooks look at, with slime's defaults."""
    values: dict[str, Any] = {
        "advantage_estimator": "grpo",
        "rewards_normalization": True,
        "grpo_std_normalization": True,
        "n_samples_per_prompt": 4,
        "rollout_batch_size": 2,
        "reward_key": None,
        "log_passrate": False,
        "n_samples_per_eval_prompt": 1,
        "eval_datasets": [],
        "tau2": None,
    }
    return SimpleNamespace(**{**values, **changes})
