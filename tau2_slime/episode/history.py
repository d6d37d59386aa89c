"""The position of a conversation, derived from its messages: who spoke last, who speaks next, who has seen what.

The rules are those of τ²'s orchestrator. A tool call goes to the environment and its result goes back to the caller.
Everything else goes to the other side. Only the side that made a call sees its result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import CannotResume
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.users.answers import kept_for_provider

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message


class Role(StrEnum):
    AGENT = "agent"
    USER = "user"
    ENV = "env"


@dataclass(frozen=True)
class Position:
    """Who acts next after some messages, and what each side has seen."""

    sender: Role
    receiver: Role
    message: Delivered
    """The message that the receiver gets next: the last one, or several tool results as one MultiToolMessage."""
    agent_history: list[Message]
    """What the agent has seen before; ``message`` is not in it if it is for the agent."""
    user_history: list[Message]


def position_after(messages: list[Message], *, join_results: bool) -> Position:
    """The position after ``messages``, which must not be empty.

    ``join_results``: deliver the trailing tool results of one turn together, as an interrupted conversation needs it. τ²
    itself delivers only the last result of a task's message history.

    Raises:
        ValueError: the last message is neither the agent's, the user's nor a tool's.
    """
    t = tau2_compat.load()
    last, waiting = messages[-1], 1
    if isinstance(last, t.AssistantMessage):
        sender, receiver = Role.AGENT, Role.ENV if last.is_tool_call() else Role.USER
    elif isinstance(last, t.UserMessage):
        sender, receiver = Role.USER, Role.ENV if last.is_tool_call() else Role.AGENT
    elif isinstance(last, t.ToolMessage):
        sender, receiver = Role.ENV, Role.AGENT if last.requestor == "assistant" else Role.USER
        while join_results and waiting < len(messages) and isinstance(messages[-waiting - 1], t.ToolMessage):
            waiting += 1
    else:
        raise ValueError(f"the history ends with a {type(last).__name__}")
    message = last if waiting == 1 else t.MultiToolMessage(role="tool", tool_messages=list(messages[-waiting:]))
    # The receiver of the last message gets it delivered; for everyone else it is history already.
    agent = messages[:-waiting] if receiver is Role.AGENT else messages
    user = messages[:-waiting] if receiver is Role.USER else messages
    return Position(sender, receiver, message, [m for m in agent if agent_sees(m)], [m for m in user if user_sees(m)])


def agent_sees(message: Message) -> bool:
    """True for what the agent is shown: its own messages, their results, and the user's text."""
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return bool(message.requestor == "assistant")
    return bool(
        isinstance(message, t.AssistantMessage) or (isinstance(message, t.UserMessage) and not message.is_tool_call())
    )


def user_sees(message: Message) -> bool:
    """True for what the user is shown: its own messages, their results, and the agent's text."""
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return bool(message.requestor == "user")
    return bool(
        isinstance(message, t.UserMessage) or (isinstance(message, t.AssistantMessage) and not message.is_tool_call())
    )


def dump_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """τ² messages as plain data; of a provider's raw reply only what that provider wants back."""
    dumped = []
    for message in messages:
        plain = message.model_dump(mode="json", exclude_none=True, exclude={"raw_data"})
        kept = kept_for_provider(message.raw_data) if message.role == "user" else None
        dumped.append({**plain, "raw_data": kept} if kept else plain)
    return dumped


def load_messages(dumped: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages that `dump_messages` wrote.

    Raises:
        ValueError, KeyError, TypeError: the data does not hold τ² messages.
    """
    t = tau2_compat.load()
    classes = {"assistant": t.AssistantMessage, "user": t.UserMessage, "tool": t.ToolMessage}
    return [classes[message["role"]](**message) for message in dumped]


_TIMING = re.compile(r"\n\n\[Timing: retrieval=\d+ms(?:, reranking=\d+ms)?, total=\d+ms\]\Z")
"""How long a search took, at the end of τ²'s answer: never twice the same."""


def _untimed(content: str | None) -> str:
    return _TIMING.sub("", content or "")


def replay_calls(
    world: World, history: list[Message], messages: list[Message], rejected: Mapping[int, list[int]]
) -> None:
    """Run the tool calls of ``messages`` again in a fresh ``world``. ``history``: the messages that the task begins with.

    ``rejected``: message index -> positions of calls that never reached the environment; they are skipped.

    Raises:
        CannotResume: a tool gives another answer than the recorded one.
    """
    try:
        world.set_state(history)
    except (ValueError, AssertionError) as error:  # how τ² says that a beginning does not hold together
        raise CannotResume(f"the task's initial state cannot be set: {error}") from error
    world.environment.sync_tools()
    index = len(history)
    while index < len(messages):
        calls = getattr(messages[index], "tool_calls", None) or []
        recorded = messages[index + 1 : index + 1 + len(calls)]
        refused = rejected.get(index, ())
        for position, (call, result) in enumerate(zip(calls, recorded, strict=False)):
            if position in refused:
                continue
            again, _ = world.call(call)
            if (_untimed(again.content), again.error) != (_untimed(result.content), result.error):
                raise CannotResume(f"replaying {call.name} (message {index}) gives another result than before")
        world.environment.sync_tools()
        index += 1 + len(recorded)
