"""`InteractionResult` -> the slime `Sample` that was given.

The sample is mutated, never replaced: slime sorts and groups by fields that it set itself. Whatever the episode did, the
result can be trained on: prompt tokens, at least one response token, mask and log-probs of its length, a number as reward.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tau2_slime.outcome import Blame, InteractionResult, Status, Termination
from tau2_slime.slime_compat import count_calls, status_member
from tau2_slime.slime_compat import set_field as _set


@dataclass
class StandaloneSample:
    """The fields of slime's ``Sample`` that a rollout fills, for use without slime (`tau2-slime rollout`, tests)."""

    class Status(Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    index: int | None = None
    group_index: int | None = None
    prompt: Any = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    reward: float | None = None
    loss_mask: list[int] | None = None
    rollout_log_probs: list[float] | None = None
    weight_versions: list[str] = field(default_factory=list)
    remove_sample: bool = False
    status: Status = Status.PENDING
    metadata: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    non_generation_time: float = 0.0


def fill_sample(sample: Any, result: InteractionResult, *, response_text: str = "", pad_id: int = 0) -> Any:
    """Write ``result`` into ``sample`` and return the same object.

    Failures (the user simulator's, the infrastructure's) get ``remove_sample``, an all-zero mask, zero log-probs and the
    reward 0.0 that slime needs as a number; ``metadata["tau2"]`` says that it is none, and what τ² itself would have paid.
    Aborted samples keep what was sampled. ``response_text`` is the decoded response; ``pad_id`` stands in where nothing
    was tokenised.
    """
    ledger = result.ledger
    tokens = list(ledger.tokens) if ledger is not None else []
    prompt_length = ledger.prompt_length if ledger is not None else 0
    mask = list(ledger.loss_mask) if ledger is not None else []
    log_probs = list(ledger.log_probs) if ledger is not None else []
    if not prompt_length:
        tokens, prompt_length = [pad_id, *tokens], 1
    if not mask:  # slime's trainer cannot take an empty response: one token that counts for nothing
        tokens.append(pad_id)
        mask, log_probs = [0], [0.0]
    removed = not result.trainable
    if removed and result.status is not Status.ABORTED:
        mask, log_probs = [0] * len(mask), [0.0] * len(log_probs)

    _set(sample, "tokens", tokens)
    _set(sample, "response", response_text)
    _set(sample, "response_length", len(mask))
    _set(sample, "loss_mask", mask)
    _set(sample, "rollout_log_probs", log_probs)
    _set(sample, "weight_versions", list(ledger.weight_versions) if ledger is not None else [])
    _set(sample, "remove_sample", removed)
    reward = result.reward if result.reward is not None and not removed else 0.0
    _set(sample, "reward", reward)
    _set(sample, "status", status_member(sample, result.status.name))
    stats = result.stats
    _set(sample, "non_generation_time", max(0.0, stats.total_time - stats.generation_time))
    count_calls(sample, result.generations)
    metadata = dict(sample.metadata) if isinstance(getattr(sample, "metadata", None), dict) else {}
    metadata.update(
        raw_reward=reward,
        round_number=stats.agent_turns,
        tau2={
            "domain": result.domain,
            "task_split": result.task_split,
            "task_id": result.task_id,
            "agent_type": result.agent_type,
            "user_model": result.user_model,
            "termination": str(result.termination),
            "blame": str(result.blame),
            "excluded": removed,
            "official_reward": result.reward,
            "detail": result.detail,
            "reward_breakdown": (result.reward_info or {}).get("reward_breakdown"),
            "stats": dataclasses.asdict(stats),
        },
    )
    sample.metadata = metadata
    return sample


def reset_sample(sample: Any) -> None:
    """Forget an earlier, unfinished episode: slime hands an aborted sample back with its old tokens."""
    for name, value in (
        ("tokens", []),
        ("response", ""),
        ("response_length", 0),
        ("loss_mask", None),
        ("rollout_log_probs", None),
        ("weight_versions", []),
        ("remove_sample", False),
        ("reward", None),
    ):
        _set(sample, name, value)
    if isinstance(getattr(sample, "metadata", None), dict):
        sample.metadata = {k: v for k, v in sample.metadata.items() if k not in ("tau2", "raw_reward", "round_number")}


def failed_result(
    error: str, *, termination: Termination = Termination.INFRASTRUCTURE_ERROR, **known: Any
) -> InteractionResult:
    """The result of an episode that never began."""
    facts: dict[str, Any] = {"domain": "", "task_split": "", "task_id": "", "agent_type": "", "user_model": "", **known}
    return InteractionResult(termination=termination, blame=Blame.INFRASTRUCTURE, detail=error, **facts)
