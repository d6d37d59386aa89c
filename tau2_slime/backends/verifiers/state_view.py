"""What a rollout's ``state`` shows of the episode: the recipe's keys, read from the core's own state, never a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.backends.verifiers.settings import RECORD, record_of
from tau2_slime.episode.history import agent_sees, user_sees

EPISODE = "tau2_episode"
"""The key of the `TurnEpisode` itself."""


class View(dict[str, Any]):
    """A read-only dict whose values are looked up when they are read; the first look after the episode's end is kept.

    A dict, because those who write results down (msgpack, JSON) know no other mapping. Not looked up before somebody asks:
    a database is megabytes. A copy of it, and what is pickled, is a plain dict; what reads a dict's storage without its
    methods (``pyarrow.array``) needs such a copy.
    """

    def __init__(self, lookups: Mapping[str, Callable[[], Any]], over: Callable[[], bool]) -> None:
        super().__init__(dict.fromkeys(lookups))
        self._lookups, self._over = dict(lookups), over

    def _now(self) -> dict[str, Any]:
        return {key: self[key] for key in self}

    def __getitem__(self, key: str) -> Any:
        if self._lookups and self._over():  # nothing changes any more
            super().update({name: look() for name, look in self._lookups.items()})
            self._lookups = {}
        return self._lookups[key]() if self._lookups else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self._now().get(key, default)

    def __iter__(self) -> Iterator[str]:  # overridden, or dict(view) would read the storage
        return super().__iter__()

    def items(self) -> Any:
        return self._now().items()

    def values(self) -> Any:
        return self._now().values()

    def copy(self) -> dict[str, Any]:
        return self._now()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    def __reduce__(self) -> Any:
        return dict, (self._now(),)

    def __repr__(self) -> str:
        return f"View({', '.join(self)})"

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("what a rollout's state shows of its episode is read, never written")

    __setitem__ = __delitem__ = update = setdefault = pop = popitem = clear = __ior__ = _refuse


def show(state: Any, episode: TurnEpisode) -> None:
    """Write the recipe's keys into ``state``; call it again after every turn, for those that are plain values."""
    conversation = episode.conversation
    messages = conversation.messages if conversation is not None else []
    environment = episode.parts.agent.world.environment
    if EPISODE not in state:
        state[EPISODE] = episode

        def over() -> bool:
            return episode.over

        state["agent_state"] = View({"messages": lambda: _seen(episode, agent_sees)}, over)
        state["user_state"] = View({"messages": lambda: _seen(episode, user_sees)}, over)
        state["env_db"] = View(
            {"agent_db": lambda: _dump(environment.tools), "user_db": lambda: _dump(environment.user_tools)}, over
        )
        state["user_simulator"] = episode.parts.user_model
    state["turn_count"] = 0 if conversation is None else conversation.agent_turns + conversation.user_turns
    state["tool_executions"] = tool_executions(messages)
    state["termination_reason"] = None if episode.result is None else str(episode.result.termination)
    if episode.result is None:
        state[RECORD] = None
    elif state.get(RECORD) is None:
        state[RECORD] = record_of(episode.result)


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
