"""Where a conversation stands, told from its messages alone: who spoke last, who speaks next, who has seen what.

The rules are τ²'s orchestrator's: a tool call goes to the environment and its result back to the caller; everything else
goes to the other side; tool messages are seen by the side that called.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tau2_slime.errors import CannotResume
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World


class Role(StrEnum):
    AGENT = "agent"
    USER = "user"
    ENV = "env"


@dataclass(frozen=True)
class Standing:
    """What is needed to go on after some messages."""

    sender: Role
    receiver: Role
    message: Any
    """The message that the receiver gets next: the last one, or several tool results as one MultiToolMessage."""
    agent_history: list[Any]
    """What the agent has seen before; ``message`` is not in it if it is for the agent."""
    user_history: list[Any]


def standing(messages: list[Any], *, join_results: bool) -> Standing:
    """``messages`` must not be empty. ``join_results``: trailing tool results of one turn are delivered together, as in a
    conversation that was interrupted; τ² itself delivers only the last one of a task's message history.

    Raises:
        ValueError: the last message is nobody's.
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
    return Standing(sender, receiver, message, [m for m in agent if agent_sees(m)], [m for m in user if user_sees(m)])


def agent_sees(message: Any) -> bool:
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return message.requestor == "assistant"
    return isinstance(message, t.AssistantMessage) or (
        isinstance(message, t.UserMessage) and not message.is_tool_call()
    )


def user_sees(message: Any) -> bool:
    t = tau2_compat.load()
    if isinstance(message, t.ToolMessage):
        return message.requestor == "user"
    return isinstance(message, t.UserMessage) or (
        isinstance(message, t.AssistantMessage) and not message.is_tool_call()
    )


def says_something(message: Any) -> bool:
    """False for what τ² itself would crash on: neither text nor a call, or an empty list of calls."""
    return bool(message.tool_calls) if message.is_tool_call() else message.has_text_content()


def dump(messages: list[Any]) -> list[dict[str, Any]]:
    """τ² messages as plain data, without what the provider's client left on them."""
    return [message.model_dump(mode="json", exclude_none=True, exclude={"raw_data"}) for message in messages]


def load(dumped: list[dict[str, Any]]) -> list[Any]:
    """The messages behind `dump`.

    Raises:
        ValueError, KeyError, TypeError: they are none.
    """
    t = tau2_compat.load()
    classes = {"assistant": t.AssistantMessage, "user": t.UserMessage, "tool": t.ToolMessage}
    return [classes[message["role"]](**message) for message in dumped]


def replay(world: World, history: list[Any], messages: list[Any], rejected: dict[int, list[int]]) -> None:
    """Bring a fresh ``world`` to where ``messages`` left the old one; ``history`` is what the task itself begins with.

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
            if (again.content, again.error) != (result.content, result.error):
                raise CannotResume(f"replaying {call.name} (message {index}) gives another result than before")
        world.environment.sync_tools()
        index += 1 + len(recorded)
