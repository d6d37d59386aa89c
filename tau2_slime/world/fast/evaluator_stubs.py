"""τ²'s own evaluation without the work that was done before: two environments, a replay of the episode, the gold actions.

`evaluate_simulation` runs unchanged, with its own evaluators. Only the environments that it builds are replaced. The
predicted one is the episode's own, which is already where a replay would bring it (`replays`). The gold one has its end
state, which τ²'s code computed once per task. Every stub has exactly the methods that the evaluators of the verified
releases use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import cached_property
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar

from tau2_slime.world import tau2_compat
from tau2_slime.world.fast.factories import BuiltEnvironment, DatabaseState, EnvironmentFactory

if TYPE_CHECKING:
    from tau2_slime.world.types import EnvAssertion, RewardInfo, Task, ToolKit, ToolType

MAX_GOLD = 20_000
"""Tasks of one domain whose gold end state is kept (some hundred bytes each)."""


def evaluate_with_stubs(
    arguments: dict[str, Any], played: BuiltEnvironment, factory: EnvironmentFactory, env_kwargs: dict[str, Any]
) -> RewardInfo:
    """τ²'s `evaluate_simulation` of the episode that was played in ``played``.

    ``factory`` builds the fresh environment, without solo mode, in which τ² plays the gold actions once.

    Raises:
        NotShared: before anything was evaluated that costs money: τ² must look at the whole database.
    """
    task = arguments["task"]
    played.environment.sync_tools()
    predicted = _PredictedEnvironment(played)
    known = factory.gold.get(_key(task, env_kwargs))
    gold = (
        _KnownGoldEnvironment(known[1])
        if known is not None
        else _RecordingGoldEnvironment(lambda: factory.build(solo=False, env_kwargs=env_kwargs))
    )
    result = _with_registry(tau2_compat.load().evaluate_simulation, _StubRegistry(predicted, gold))(**arguments)
    if isinstance(gold, _RecordingGoldEnvironment) and gold.recorded is not None:
        # What the key names by id is kept with it, so that no other object gets that id.
        kept = task, task.initial_state, task.evaluation_criteria.actions
        factory.gold[_key(task, env_kwargs)] = kept, gold.recorded
        while len(factory.gold) > MAX_GOLD:
            factory.gold.popitem(last=False)
    return result


def knows_gold(task: Task, factory: EnvironmentFactory, env_kwargs: dict[str, Any]) -> bool:
    """True if the gold end state of ``task`` need not be computed any more."""
    return _key(task, env_kwargs) in factory.gold


def _key(task: Task, env_kwargs: dict[str, Any]) -> Hashable:
    """The task object with what its gold end state depends on: a changed copy of a task is another one."""
    criteria = task.evaluation_criteria
    actions = criteria.actions if criteria is not None else None
    allowed = sorted(env_kwargs.get("read_log_allowlist") or ())
    return id(task), id(task.initial_state), id(actions), len(actions or ()), json.dumps(allowed)


def _with_registry(evaluate: FunctionType, registry: _StubRegistry) -> Callable[..., RewardInfo]:
    """The function ``evaluate``, in whose module the name ``registry`` means the given one."""
    rebound = FunctionType(
        evaluate.__code__,
        {**evaluate.__globals__, "registry": registry},
        None,
        evaluate.__defaults__,
        evaluate.__closure__,
    )
    rebound.__kwdefaults__ = evaluate.__kwdefaults__
    return rebound


class _StubRegistry:
    """τ²'s registry as the evaluator sees it: whatever it builds is one of the stubs."""

    def __init__(
        self, predicted: _PredictedEnvironment, gold: _KnownGoldEnvironment | _RecordingGoldEnvironment
    ) -> None:
        self._predicted, self._gold = predicted, gold

    def get_env_constructor(
        self, domain: str
    ) -> Callable[..., _PredictedEnvironment | _KnownGoldEnvironment | _RecordingGoldEnvironment]:
        # τ² asks for the gold environment without a mode: gold actions are the user's and the agent's own.
        return lambda **kwargs: self._predicted if "solo_mode" in kwargs else self._gold


class _PredictedEnvironment:
    """The environment in which the episode was played."""

    def __init__(self, built: BuiltEnvironment) -> None:
        self._environment = built.environment
        self._state = built.database_state()  # before any assertion runs, as in τ²

    def set_state(self, **_: object) -> None:
        """It is there already."""

    def get_db_hash(self) -> Hashable:
        return self._state[0]

    def get_user_db_hash(self) -> Hashable:
        return self._state[1]

    def run_env_assertion(self, assertion: EnvAssertion, raise_assertion_error: bool = True) -> bool:
        return bool(self._environment.run_env_assertion(assertion, raise_assertion_error=raise_assertion_error))

    @property
    def tools(self) -> _ToolNames | None:
        return _ToolNames.of(self._environment.tools)

    @property
    def user_tools(self) -> _ToolNames | None:
        return _ToolNames.of(self._environment.user_tools)


class _ToolNames:
    """A tool kit's names and types, without the schemas that τ² would build only to read the names."""

    _known: ClassVar[dict[type, tuple[str, ...]]] = {}
    """Class of a tool kit -> the tools that every kit of the class offers."""

    def __init__(self, kit: ToolKit) -> None:
        self._kit = kit

    @classmethod
    def of(cls, kit: ToolKit | None) -> _ToolNames | None:
        return None if kit is None else cls(kit)

    def get_tools(self) -> dict[str, None]:
        names = self._known.get(type(self._kit))
        if names is None:
            names = self._known[type(self._kit)] = tuple(self._kit.get_tools())
        return dict.fromkeys(names)

    def tool_type(self, name: str) -> ToolType:
        return self._kit.tool_type(name)


class _KnownGoldEnvironment:
    """The gold environment of a task whose end state is known."""

    def __init__(self, state: DatabaseState) -> None:
        self._state = state

    def set_state(self, **_: object) -> None:
        """It is at its end already."""

    def make_tool_call(self, *_: object, **__: object) -> None:
        """Every gold action was made when the end state was recorded."""

    def get_db_hash(self) -> Hashable:
        return self._state[0]

    def get_user_db_hash(self) -> Hashable:
        return self._state[1]


class _RecordingGoldEnvironment:
    """A real environment, in which τ² plays the gold actions; it remembers where they led."""

    def __init__(self, build: Callable[[], BuiltEnvironment]) -> None:
        self._build = build
        self.recorded: DatabaseState | None = None

    @cached_property
    def _built(self) -> BuiltEnvironment:
        return self._build()

    def set_state(self, **kwargs: object) -> None:
        self._built.environment.set_state(**kwargs)

    def make_tool_call(self, *args: object, **kwargs: object) -> object:
        return self._built.environment.make_tool_call(*args, **kwargs)

    def get_db_hash(self) -> Hashable:
        return self._end_state()[0]

    def get_user_db_hash(self) -> Hashable:
        return self._end_state()[1]

    def _end_state(self) -> DatabaseState:
        if self.recorded is None:
            self.recorded = self._built.database_state()
        return self.recorded
