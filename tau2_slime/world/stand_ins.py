"""τ²'s own evaluation, spared what it would only do again: two environments, a replay of the episode, the gold actions.

`evaluate_simulation` runs unchanged, with its own evaluators. Only the environments that it builds are stand-ins: the
predicted one is the episode's own, which is already where a replay would bring it; the gold one has its end state, which
was computed once per task, by τ²'s code. Every stand-in has exactly the methods that the evaluators of the proved releases
use; anything else is an AttributeError, after which the caller asks τ² without stand-ins.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Hashable
from functools import cached_property
from types import FunctionType
from typing import Any

from tau2_slime.world.blueprints import Built

State = tuple[Hashable, Hashable]

_lock = threading.Lock()
_gold: dict[tuple[int, str], tuple[Any, State]] = {}
"""(task, environment arguments) -> the task, kept so that its id stays its own, and its end state."""


def evaluate_with(
    evaluate: Any, arguments: dict[str, Any], played: Built, new: Callable[[], Built], env_kwargs: dict[str, Any]
) -> Any:
    """``evaluate(**arguments)``, τ²'s `evaluate_simulation`, of the episode that was played in ``played``.

    ``new`` builds a fresh environment without solo mode, as τ² does for the gold actions, from ``env_kwargs``.
    """
    task = arguments["task"]
    key = (id(task), json.dumps(env_kwargs, sort_keys=True, default=str))
    known = _gold.get(key)
    gold = _Gold(known[1]) if known is not None else _RecordingGold(new)
    names = evaluate.__globals__
    registry = _Registry(_Predicted(played), gold, names["registry"])
    with_stand_ins = FunctionType(
        evaluate.__code__, {**names, "registry": registry}, None, evaluate.__defaults__, evaluate.__closure__
    )
    with_stand_ins.__kwdefaults__ = evaluate.__kwdefaults__
    result = with_stand_ins(**arguments)
    if isinstance(gold, _RecordingGold) and gold.recorded is not None:
        with _lock:
            _gold[key] = (task, gold.recorded)
    return result


class _Registry:
    """τ²'s registry, but environments are the stand-ins."""

    def __init__(self, predicted: _Predicted, gold: _Gold | _RecordingGold, registry: Any) -> None:
        self._predicted, self._gold, self._registry = predicted, gold, registry

    def get_env_constructor(self, domain: str) -> Callable[..., Any]:
        return self._environment

    def _environment(self, **kwargs: Any) -> Any:
        # τ² asks for the gold environment without a mode: gold actions are the user's and the agent's own.
        return self._predicted if "solo_mode" in kwargs else self._gold


class _Predicted:
    """The environment in which the episode was played."""

    def __init__(self, built: Built) -> None:
        self._environment = built.environment
        self._built = built
        self._state: State | None = None

    def set_state(self, **_: Any) -> None:
        """It is there already."""

    def get_db_hash(self) -> Hashable:
        return self._states()[0]

    def get_user_db_hash(self) -> Hashable:
        return self._states()[1]

    def run_env_assertion(self, assertion: Any, raise_assertion_error: bool = True) -> bool:
        return bool(self._environment.run_env_assertion(assertion, raise_assertion_error=raise_assertion_error))

    @property
    def tools(self) -> Any:
        return _Kit.of(self._environment.tools)

    @property
    def user_tools(self) -> Any:
        return _Kit.of(self._environment.user_tools)

    def _states(self) -> State:
        if self._state is None:
            self._state = self._built.state()
        return self._state


class _Kit:
    """A tool kit's names and types, without the schemas that τ² would build only to read the names."""

    def __init__(self, kit: Any) -> None:
        self._kit = kit

    @classmethod
    def of(cls, kit: Any) -> _Kit | None:
        return None if kit is None else cls(kit)

    def get_tools(self) -> dict[str, Any]:
        return dict.fromkeys(self._kit.tools)

    def tool_type(self, name: str) -> Any:
        return self._kit.tool_type(name)


class _Gold:
    """The gold environment of a task whose end state is known."""

    def __init__(self, state: State) -> None:
        self._state = state

    def set_state(self, **_: Any) -> None: ...

    def make_tool_call(self, *_: Any, **__: Any) -> None: ...

    def get_db_hash(self) -> Hashable:
        return self._state[0]

    def get_user_db_hash(self) -> Hashable:
        return self._state[1]


class _RecordingGold:
    """A real environment, in which τ² plays the gold actions; it remembers where they led."""

    def __init__(self, new: Callable[[], Built]) -> None:
        self._new = new
        self.recorded: State | None = None

    @cached_property
    def _built(self) -> Built:
        return self._new()

    def set_state(self, **kwargs: Any) -> None:
        self._built.environment.set_state(**kwargs)

    def make_tool_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._built.environment.make_tool_call(*args, **kwargs)

    def get_db_hash(self) -> Hashable:
        return self._states()[0]

    def get_user_db_hash(self) -> Hashable:
        return self._states()[1]

    def _states(self) -> State:
        if self.recorded is None:
            self.recorded = self._built.state()
        return self.recorded
