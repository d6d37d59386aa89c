"""τ²'s own evaluation, spared what it would only do again: two environments, a replay of the episode, the gold actions.

`evaluate_simulation` runs unchanged, with its own evaluators. Only the environments that it builds are stand-ins: the
predicted one is the episode's own, which is already where a replay would bring it (`replays`); the gold one has its end
state, which was computed once per task, by τ²'s code. Every stand-in has exactly the methods that the evaluators of the
proved releases use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import cached_property
from types import FunctionType
from typing import Any

from tau2_slime.world.fast.blueprints import Blueprint, Built, State

MAX_GOLD = 20_000
"""Tasks of one domain whose gold end state is kept (some hundred bytes each)."""


def evaluate_with(
    evaluate: Any, arguments: dict[str, Any], played: Built, plan: Blueprint, env_kwargs: dict[str, Any]
) -> Any:
    """``evaluate(**arguments)``, τ²'s `evaluate_simulation`, of the episode that was played in ``played``.

    ``plan`` builds the fresh environment, without solo mode, in which τ² plays the gold actions once.

    Raises:
        NotShared: before anything was evaluated that costs money: τ² must look at the whole database.
    """
    task = arguments["task"]
    played.environment.sync_tools()
    predicted = _Predicted(played)
    known = plan.gold.get(_key(task, env_kwargs))
    gold = (
        _Gold(known[1]) if known is not None else _RecordingGold(lambda: plan.build(solo=False, env_kwargs=env_kwargs))
    )
    names = evaluate.__globals__
    registry = _Registry(predicted, gold)
    with_stand_ins = FunctionType(
        evaluate.__code__, {**names, "registry": registry}, None, evaluate.__defaults__, evaluate.__closure__
    )
    with_stand_ins.__kwdefaults__ = evaluate.__kwdefaults__
    result = with_stand_ins(**arguments)
    if isinstance(gold, _RecordingGold) and gold.recorded is not None:
        # What the key names by id is kept with it, so that no other object gets that id.
        kept = task, task.initial_state, task.evaluation_criteria.actions
        plan.gold[_key(task, env_kwargs)] = kept, gold.recorded
        while len(plan.gold) > MAX_GOLD:
            plan.gold.popitem(last=False)
    return result


def knows_gold(task: Any, plan: Blueprint, env_kwargs: dict[str, Any]) -> bool:
    """True if ``task``'s gold end state need not be computed any more."""
    return _key(task, env_kwargs) in plan.gold


def _key(task: Any, env_kwargs: dict[str, Any]) -> Hashable:
    """The task object with what its gold end state depends on: a changed copy of a task is another one."""
    criteria = task.evaluation_criteria
    actions = criteria.actions if criteria is not None else None
    allowed = sorted(env_kwargs.get("read_log_allowlist") or ())
    return id(task), id(task.initial_state), id(actions), len(actions or ()), json.dumps(allowed)


class _Registry:
    """τ²'s registry as the evaluator sees it: whatever it builds is one of the stand-ins."""

    def __init__(self, predicted: _Predicted, gold: _Gold | _RecordingGold) -> None:
        self._predicted, self._gold = predicted, gold

    def get_env_constructor(self, domain: str) -> Callable[..., Any]:
        return self._environment

    def _environment(self, **kwargs: Any) -> Any:
        # τ² asks for the gold environment without a mode: gold actions are the user's and the agent's own.
        return self._predicted if "solo_mode" in kwargs else self._gold


class _Predicted:
    """The environment in which the episode was played."""

    def __init__(self, built: Built) -> None:
        self._environment = built.environment
        self._state = built.state()  # before any assertion runs, as in τ²

    def set_state(self, **_: Any) -> None:
        """It is there already."""

    def get_db_hash(self) -> Hashable:
        return self._state[0]

    def get_user_db_hash(self) -> Hashable:
        return self._state[1]

    def run_env_assertion(self, assertion: Any, raise_assertion_error: bool = True) -> bool:
        return bool(self._environment.run_env_assertion(assertion, raise_assertion_error=raise_assertion_error))

    @property
    def tools(self) -> Any:
        return _Kit.of(self._environment.tools)

    @property
    def user_tools(self) -> Any:
        return _Kit.of(self._environment.user_tools)


class _Kit:
    """A tool kit's names and types, without the schemas that τ² would build only to read the names."""

    def __init__(self, kit: Any) -> None:
        self._kit = kit

    @classmethod
    def of(cls, kit: Any) -> _Kit | None:
        return None if kit is None else cls(kit)

    def get_tools(self) -> dict[str, None]:
        return dict.fromkeys(_names(self._kit))

    def tool_type(self, name: str) -> Any:
        return self._kit.tool_type(name)


_known_names: dict[type, tuple[str, ...]] = {}


def _names(kit: Any) -> tuple[str, ...]:
    """The tools that ``kit`` offers; the same for every kit of a class."""
    names = _known_names.get(type(kit))
    if names is None:
        names = _known_names[type(kit)] = tuple(kit.get_tools())
    return names


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
