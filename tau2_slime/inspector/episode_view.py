"""One episode as the page shows it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.conversation import conversation_of
from tau2_slime.inspector.database_diff import DatabaseDiff
from tau2_slime.inspector.tokenizers import token_texts
from tau2_slime.inspector.trajectory import Trajectory

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile

VIOLATIONS = 20
"""Violations of token truth that are shown of one episode."""
View = dict[str, Any]
"""One episode as `conversation.js` reads it; `episode_view` says what is in it."""


def episode_view(trajectory: Trajectory, database: DatabaseDiff, language: CheckpointProfile | None = None) -> View:
    """What the viewer shows of ``trajectory``.

    ``title``, ``reward``, ``facts`` (pairs of name and value), ``warnings`` (lines), ``entries`` (`conversation.Entry`),
    ``reward_info``, ``database`` (`DatabaseDiff`), ``telemetry``, ``stats`` and ``tokens``. The last is None without tokens;
    else ``ids`` (T,), of which those from ``start`` on are the response, and of the response (R,) ``mask`` and ``log_probs``
    (natural logarithms, four digits).
    """
    ledger = trajectory.ledger
    facts = {
        "ended": trajectory.termination,
        "blame": trajectory.blame,
        "user": trajectory.user_model,
        "agent": trajectory.agent_type,
        "split": trajectory.task_split,
        "group": trajectory.group,
        "read from": trajectory.where,
    }
    tokens = {
        "prompt": f"{trajectory.domain} {trajectory.agent_type}",  # prompts of one name begin alike, and are stored once
        "ids": list(trajectory.tokens),
        "start": trajectory.prompt_length,
        "mask": list((ledger or {}).get("loss_mask") or []),
        "log_probs": [0.0 if value == 0 else _rounded(value) for value in (ledger or {}).get("log_probs") or []],
    }
    return {
        "title": f"{trajectory.name} · {trajectory.task_label}",
        "reward": trajectory.counted_reward,
        "facts": [(name, value) for name, value in facts.items() if value],
        "warnings": [
            *([trajectory.detail] if trajectory.detail else []),
            *(str(violation) for violation in check_trajectory(trajectory)[:VIOLATIONS]),
        ],
        "entries": [
            {**vars(entry), "calls": [*map(vars, entry.calls)], "spans": [*map(vars, entry.spans)]}
            for entry in conversation_of(trajectory, language)
        ],
        "tokens": tokens if ledger is not None else None,
        "reward_info": {k: v for k, v in trajectory.reward_info.items() if v not in (None, [], {})},
        "database": asdict(database),
        "telemetry": trajectory.telemetry,
        "stats": {k: v for k, v in trajectory.stats.items() if v not in (None, 0, 0.0, {}, [])},
    }


def alone(view: View, language: CheckpointProfile | None = None) -> View:
    """``view`` with all that its reader needs: what `pack` shares between episodes is in ``vocabulary``."""
    tokens = view["tokens"]
    if tokens is None:
        return view
    known = {token for token in tokens["ids"] if type(token) is int}
    texts = token_texts(known, language) if language is not None else {}
    return {**view, "tokens": {**tokens, "shared": 0}, "vocabulary": {"prompts": {}, "texts": texts}}


def _rounded(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, (int, float)) and abs(value) < 1e300 else None
