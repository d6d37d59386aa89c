"""What an interrupted episode leaves behind, as plain data, and what it is taken up again from. Knows nothing of slime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tau2_slime.episode.result import EpisodeStats
from tau2_slime.tokens.ledger import TokenLedger

VERSION = 1


@dataclass
class Saved:
    """What an earlier rollout left of an episode."""

    conversation: Mapping[str, Any]
    """`episode.Conversation.state`."""
    transcript: Mapping[str, Any]
    """`transcript.Transcript.state`."""
    stats: EpisodeStats
    """Of all earlier parts together."""
    ledger: TokenLedger | None
    """None if the policy had not been asked yet."""


def save(
    identity: Mapping[str, str],
    conversation: Mapping[str, Any],
    transcript: Mapping[str, Any],
    stats: EpisodeStats,
    ledger: TokenLedger | None,
) -> dict[str, Any]:
    """The state of an interrupted episode, without its tokens: those stay in the sample. ``identity``: see `read`."""
    return {
        "version": VERSION,
        "identity": dict(identity),
        "conversation": dict(conversation),
        "transcript": dict(transcript),
        "stats": dataclasses.asdict(stats),
        "length": len(ledger.tokens) if ledger is not None else 0,
        "segments": [dataclasses.asdict(segment) for segment in ledger.segments] if ledger is not None else [],
    }
