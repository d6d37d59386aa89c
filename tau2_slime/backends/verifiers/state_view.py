"""What a v0 rollout's ``state`` shows of its episode: the recipe's keys, read from the episode's own objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from tau2_slime.backends.turns import ChatMessage, TurnEpisode
from tau2_slime.backends.verifiers.results import RECORD_KEY, episode_record
from tau2_slime.episode.history import agent_sees, user_sees

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

    import verifiers as vf

    from tau2_slime.world.types import DB, Message, ToolCall

EPISODE_KEY = "tau2_episode"
"""The key of the `TurnEpisode` itself."""

StateValue: TypeAlias = list[dict[str, Any]] | dict[str, Any] | None
"""Messages, a database, or no database."""


class StateView(dict[str, StateValue]):
    """A read-only dict whose values are computed when they are read. The values after the episode's end are kept.

    It computes late because a database has megabytes. It is a dict because JSON and msgpack writers accept no other
    mapping. A copy of it, and what is pickled, is a plain dict. Code that reads a dict's storage without its methods
    (``pyarrow.array``) needs such a copy.
    """

    def __init__(self, compute: Mapping[str, Callable[[], StateValue]], is_over: Callable[[], bool]) -> None:
        """``compute``: key -> gives the value now. ``is_over``: True once the values change no more."""
        super().__init__(dict.fromkeys(compute))
        self._compute, self._is_over = dict(compute), is_over

    def _now(self) -> dict[str, StateValue]:
        return {key: self[key] for key in self}

    def __getitem__(self, key: str) -> StateValue:
        if self._compute and self._is_over():
            super().update({name: value() for name, value in self._compute.items()})
            self._compute = {}
        return self._compute[key]() if self._compute else super().__getitem__(key)

    def get(self, key: str, default: StateValue = None) -> StateValue:  # type: ignore[override]
        return self._now().get(key, default)

    def __iter__(self) -> Iterator[str]:  # must be overridden: otherwise dict(view) reads the storage
        return super().__iter__()

    def items(self) -> dict_items[str, StateValue]:
        return self._now().items()

    def values(self) -> dict_values[str, StateValue]:
        return self._now().values()

    def copy(self) -> dict[str, StateValue]:
        return self._now()

    def __eq__(self, other: object) -> bool:
        return self._now() == other

    def __reduce__(self) -> tuple[type[dict[str, StateValue]], tuple[dict[str, StateValue]]]:
        return dict, (self._now(),)

    def __repr__(self) -> str:
        return f"StateView({', '.join(self)})"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a rollout's state only shows its episode: it is read, never written")

    __setitem__ = __delitem__ = update = setdefault = pop = popitem = clear = __ior__ = _refuse


def update_state(state: vf.State, episode: TurnEpisode) -> None:
    """Write the recipe's keys into ``state``. Call it after every turn: some of the values are plain numbers and lists."""
    conversation = episode.conversation
    environment = episode.setup.agent.world.environment
    if EPISODE_KEY not in state:
        state[EPISODE_KEY] = episode

        def is_over() -> bool:
            return episode.over

        state["agent_state"] = StateView({"messages": lambda: _seen(episode, agent_sees)}, is_over)
        state["user_state"] = StateView({"messages": lambda: _seen(episode, user_sees)}, is_over)
        state["env_db"] = StateView(
            {
                "agent_db": lambda: _dump(environment.tools and environment.tools.db),
                "user_db": lambda: _dump(environment.user_tools and environment.user_tools.db),
            },
            is_over,
        )
        state["user_simulator"] = episode.setup.user_model
    state["turn_count"] = 0 if conversation is None else conversation.agent_turns + conversation.user_turns
    state["tool_executions"] = tool_executions([] if conversation is None else conversation.messages)
    state["termination_reason"] = None if episode.result is None else str(episode.result.termination)
    if episode.result is None:
        state[RECORD_KEY] = None
    elif state.get(RECORD_KEY) is None:
        state[RECORD_KEY] = episode_record(episode.result)


def tool_executions(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Every answered tool call, of the agent and of the user: requestor, name, arguments, content, error."""
    found: list[dict[str, Any]] = []
    waiting: list[ToolCall] = []
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


def _seen(episode: TurnEpisode, sees: Callable[[Message], bool]) -> list[ChatMessage]:
    conversation = episode.conversation
    messages = conversation.messages if conversation is not None else []
    return [m.model_dump(mode="json", exclude_none=True, exclude={"raw_data"}) for m in messages if sees(m)]


def _dump(database: DB | None) -> dict[str, Any] | None:
    return None if database is None else database.model_dump(mode="json")
