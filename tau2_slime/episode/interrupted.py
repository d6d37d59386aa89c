"""What an interrupted episode leaves behind, as plain data, and what a later call takes up. Knows nothing of slime."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from tau2_slime.episode.history import Role, dump_messages, load_messages, position_after, replay_calls
from tau2_slime.episode.result import EpisodeStats
from tau2_slime.errors import CannotResume
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import offload
from tau2_slime.tokens.ledger import TokenLedger

if TYPE_CHECKING:
    from tau2_slime.episode.conversation import Conversation
    from tau2_slime.episode.transcript import Transcript

VERSION = 1
_COUNTERS = ("steps", "agent_turns", "user_turns", "agent_errors", "user_errors")


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
    """`state_of` it."""
    transcript: Mapping[str, Any]
    """`transcript.Transcript.state`."""
    stats: EpisodeStats
    """Of all earlier parts together."""
    ledger: TokenLedger | None
    """None if the policy had not been asked yet."""


def save(
    identity: EpisodeIdentity,
    conversation: Conversation,
    transcript: Transcript,
    stats: EpisodeStats,
    ended: tuple[str, str] | None,
) -> dict[str, Any]:
    """The state of an interrupted episode as plain data, without its tokens: those stay in the sample.

    ``ended``: (termination, detail), if the conversation is over and only the reward is missing.
    """
    ledger = transcript.ledger
    return {
        "version": VERSION,
        "identity": dict(identity),
        "conversation": state_of(conversation, ended),
        "transcript": transcript.state(),
        "stats": dataclasses.asdict(stats),
        "length": len(ledger.tokens) if ledger is not None else 0,
        "segments": [dataclasses.asdict(segment) for segment in ledger.segments] if ledger is not None else [],
    }


def state_of(conversation: Conversation, ended: tuple[str, str] | None = None) -> dict[str, Any]:
    """What `take_up` needs, as plain data: the messages, the counters, and the refused calls that wait for their answer."""
    waits = conversation.receiver is Role.ENV and conversation.sender is Role.AGENT
    return {
        "ended": list(ended) if ended is not None else None,
        "messages": dump_messages(conversation.messages),
        "rejected": [[index, positions] for index, positions in conversation.rejected.items()],
        "refused": [[position, text] for position, text in conversation.refused.items()] if waits else [],
        **{name: getattr(conversation, name) for name in _COUNTERS},
    }


async def take_up(conversation: Conversation, state: Mapping[str, Any]) -> None:
    """Bring a new conversation to where `state_of` was taken: the messages first, then the environment, by running every
    tool call again. One that had no message yet has none now, and still begins.

    Raises:
        CannotResume: the state is damaged, or a tool gives another answer than before.
    """
    try:
        for name in _COUNTERS:
            setattr(conversation, name, int(state[name]))
        conversation.rejected = {int(index): list(positions) for index, positions in state["rejected"]}
        refused = {int(position): str(text) for position, text in state["refused"]}
        conversation.messages = load_messages(state["messages"])
        if conversation.messages:
            conversation.take_position(position_after(conversation.messages, join_results=True))
            conversation.refused = refused
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CannotResume(f"the saved conversation is damaged: {type(error).__name__}: {error}") from error
    if conversation.messages:
        history = deepcopy(conversation.world.history)
        async with UntilAbort(conversation.aborted):
            await offload(replay_calls, conversation.world, history, conversation.messages, conversation.rejected)
