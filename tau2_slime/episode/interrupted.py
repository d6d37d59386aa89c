"""What an interrupted episode leaves behind, as plain data, and what a later call takes up. Knows nothing of slime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from tau2_slime.episode.result import EpisodeStats
from tau2_slime.tokens.ledger import TokenLedger

VERSION = 1


class EpisodeIdentity(TypedDict):
    """What must be the same for an interrupted episode to be taken up again."""

    domain: str
    task_split: str
    task_id: str
    agent_type: str
    agent_path: str
    agent_strategy: str
    user_model: str
    user_strategy: str
    retrieval_variant: str
    """Empty in a domain without documents."""


@dataclass
class Saved:
    """What an earlier rollout left of an episode."""

    conversation: Mapping[str, Any]
    """`conversation.Conversation.state`."""
    transcript: Mapping[str, Any]
    """`transcript.Transcript.state`."""
    stats: EpisodeStats
    """Of all earlier parts together."""
    ledger: TokenLedger | None
    """None if the policy had not been asked yet."""


def save(
    identity: EpisodeIdentity,
    conversation: Mapping[str, Any],
    transcript: Mapping[str, Any],
    stats: EpisodeStats,
    ledger: TokenLedger | None,
) -> dict[str, Any]:
    """The state of an interrupted episode as plain data, without its tokens: those stay in the sample."""
    return {
        "version": VERSION,
        "identity": dict(identity),
        "conversation": dict(conversation),
        "transcript": dict(transcript),
        "stats": dataclasses.asdict(stats),
        "length": len(ledger.tokens) if ledger is not None else 0,
        "segments": [dataclasses.asdict(segment) for segment in ledger.segments] if ledger is not None else [],
    }
