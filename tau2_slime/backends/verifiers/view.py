"""What a rollout's ``state`` shows of the episode: the recipe's keys, read from the core's own state, never a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.history import agent_sees, user_sees

EPISODE = "tau2_episode"
"""The key of the `TurnEpisode` itself."""


class View(Mapping[str, Any]):
    """A read-only mapping whose values are looked up when they are read."""

    def __init__(self, values: Mapping[str, Callable[[], Any]]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"View({', '.join(self._values)})"


def show(state: Any, episode: TurnEpisode) -> None:
    """Write the recipe's keys into ``state``; call it again after every turn, for those that are plain values."""
    conversation = episode.conversation
    messages = conversation.messages if conversation is not None else []
    environment = episode.parts.agent.world.environment
    if EPISODE not in state:
        state[EPISODE] = episode
        state["agent_state"] = View({"messages": lambda: _seen(episode, agent_sees)})
        state["user_state"] = View({"messages": lambda: _seen(episode, user_sees)})
        state["env_db"] = View(
            {"agent_db": lambda: _dump(environment.tools), "user_db": lambda: _dump(environment.user_tools)}
        )
        state["user_simulator"] = episode.parts.user_model
    state["turn_count"] = 0 if conversation is None else conversation.agent_turns + conversation.user_turns
    state["tool_executions"] = tool_executions(messages)
    state["termination_reason"] = None if episode.result is None else str(episode.result.termination)


def tool_executions(messages: list[Any]) -> list[dict[str, Any]]:
    """Every tool call that was answered, of both sides: requestor, name, arguments, content, error."""
    found: list[dict[str, Any]] = []
    waiting: list[Any] = []
    for message in messages:
        if message.role != "tool":
            waiting = list(message.tool_calls or [])
        elif waiting:
            call = waiting.pop(0)
            found.append(
                {
                    "requestor": call.requestor,
                    "name": call.name,
                    "arguments": call.arguments,
                    "content": message.content,
                    "error": message.error,
                }
            )
    return found


def _seen(episode: TurnEpisode, sees: Callable[[Any], bool]) -> list[dict[str, Any]]:
    conversation = episode.conversation
    messages = conversation.messages if conversation is not None else []
    return [m.model_dump(mode="json", exclude_none=True, exclude={"raw_data"}) for m in messages if sees(m)]


def _dump(toolkit: Any) -> dict[str, Any] | None:
    return None if toolkit is None or toolkit.db is None else toolkit.db.model_dump(mode="json")
