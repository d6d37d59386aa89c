"""τ²'s own evaluation without the work that was done before: two environments, a replay of the episode, the gold actions.

`evaluate_simulation` runs unchanged, with its own evaluators. Only the environments that it builds are replaced. The
predicted one is the episode's own, which is already where a replay would bring it, unless `replay_check` says that it might
not be; then τ² replays. The gold one has its end state, which τ²'s code computed once per task. Every stub has
exactly the methods that the evaluators of the verified releases use.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
import textwrap
import weakref
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from tau2_slime.errors import first_time
from tau2_slime.world import tau2_compat
from tau2_slime.world.fast.content import gold_key
from tau2_slime.world.fast.replay_check import ReplayNeededError, require_equal_replay

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.fast.building import EnvironmentFactory
    from tau2_slime.world.fast.shared_db import CopyOnWriteDatabase
    from tau2_slime.world.types import (
        Environment,
        InitializationData,
        Message,
        RewardInfo,
        Task,
        ToolCall,
        ToolKit,
        ToolMessage,
    )

logger = logging.getLogger(__name__)

DatabaseState = tuple[Hashable, Hashable]
"""The agent's and the user's database, comparable between environments of one factory."""

MAX_GOLD = 20_000
"""Tasks of one domain whose gold end state is kept (some hundred bytes each)."""


@dataclass
class FastEnvironment:
    """One environment from a factory, and how its episode is scored without a replay."""

    factory: EnvironmentFactory
    environment: Environment
    database: CopyOnWriteDatabase | None = None
    """The agent's database if its records are shared with other episodes."""
    fresh: bool = True
    """Nobody has used it."""

    def set_state(self, task: Task, history: list[Message]) -> None:
        """τ²'s `set_state` for the beginning of ``task``, whose change of the database is not worked out every time."""
        initial = task.initial_state
        data = initial.initialization_data if initial is not None else None
        kits = [kit for kit in (self.environment.tools, self.environment.user_tools) if kit is not None]
        fresh, self.fresh = self.fresh, False
        if fresh and not history and self.database is None:
            begun = self.factory.begun(task, self.environment)
            if begun is not None:
                vars(self.environment).update(vars(begun))
                return
        if data is not None and fresh:
            # For this call only: a kit would hold itself, and so every episode until a full collection.
            for kit in kits:
                vars(kit)["update_db"] = partial(self._update_db, kit, data)
        try:
            self.environment.set_state(
                initialization_data=data,
                initialization_actions=initial.initialization_actions if initial is not None else None,
                message_history=history,
            )
        finally:
            for kit in kits:
                vars(kit).pop("update_db", None)

    def _update_db(self, kit: ToolKit, data: InitializationData, change: dict[str, Any]) -> None:
        """τ²'s `update_db`, where the same change of the same fresh database was worked out before."""
        if self.database is None:
            self.factory.update_small_database(kit, data, change)
            return
        own = kit.db is self.database.db and self.factory.own_records(data, change, self.database)
        if own:
            self.database, kit.db = own, own.db
        else:
            type(kit).update_db(kit, change)

    def run_tool(self, call: ToolCall) -> ToolMessage:
        """τ²'s answer to ``call``, an error result included."""
        with self.access_of(call.name):
            kind: Any = type(self.environment)
            return _get_response_of(kind)(self.environment, call)

    def access_of(self, tool: str) -> AbstractContextManager[None]:
        """Around a call of ``tool``: one that only reads copies no record."""
        if self.database is None or tool not in self.factory.read_only_tools:
            return nullcontext()
        return self.database.reading()

    def database_state(self) -> DatabaseState:
        """Equal for two environments of one factory exactly if τ²'s database hashes are.

        Raises:
            ReplayNeededError: a tool replaced the database, or a part of it, with another one.
        """
        environment, database = self.environment, self.database
        if database is None:
            agent = environment.get_db_hash()
            same = environment.user_tools is not None and environment.user_tools.db is environment.tools.db
            return agent, agent if same else environment.get_user_db_hash()
        if environment.tools.db is not database.db:
            raise ReplayNeededError("the database was replaced")
        return database.state(), environment.get_user_db_hash()

    def comparable_state(self) -> Hashable:
        """Like `database_state`; the slower hashes themselves where a database was replaced."""
        try:
            return self.database_state()
        except ReplayNeededError:
            return self.environment.get_db_hash(), self.environment.get_user_db_hash()

    def knows_gold(self, world: World) -> bool:
        """True if `evaluate` takes about a millisecond: the task's gold end state need not be computed any more."""
        return gold_key(world) in self.factory.gold

    def evaluate(self, world: World, arguments: dict[str, Any], *, judge: bool) -> RewardInfo:
        """τ²'s reward for the episode of ``world``, which was played here; ``judge`` says that τ² asks a paid LLM judge.

        ``arguments`` are those of τ²'s ``evaluate_simulation``. Raises what τ² raises.
        """
        t = tau2_compat.load()
        run = arguments["simulation"]
        if run.termination_reason not in (t.TerminationReason.AGENT_STOP, t.TerminationReason.USER_STOP):
            return tau2_compat.evaluate(self.environment, arguments)  # τ² answers without an environment
        try:
            require_equal_replay(run.messages, world)
            return evaluate_with_stubs(arguments, world, self)
        except ReplayNeededError as error:
            why = str(error)
        except Exception as error:  # τ²'s own replay, below, says whether it raises as well
            if judge:  # asking again would ask the judge again
                raise
            why = f"{type(error).__name__}: {error}"
        # τ² itself raises for some episodes; where it does not, it is right, and that must not stay unknown.
        info = tau2_compat.evaluate(self.environment, arguments)
        if first_time("scored by τ²'s own replay", why):
            logger.warning("task %s: %s; τ²'s own, slower replay scores such episodes", world.task.id, why)
        return info


@cache
def _get_response_of(kind: type[Environment]) -> Callable[[Environment, ToolCall], ToolMessage]:
    """τ²'s own `get_response`, but for two things that nobody misses.

    It does not format every answer for a debug log. And the function that prepares an answer for JSON is made once, not for
    every answer: it knows itself, and so was garbage that only a collection frees.
    """
    source = textwrap.dedent(inspect.getsource(kind.get_response))
    source = re.sub(r"(?m)^ *logger\.debug\(.*\)\n", "", source).replace("self.to_json_str(", "to_json_str(")
    scope = {**kind.get_response.__globals__, "to_json_str": _to_json_str_of(kind)}
    exec(source, scope)
    made: Callable[[Environment, ToolCall], ToolMessage] = scope[kind.get_response.__name__]
    return made


def _to_json_str_of(kind: type[Environment]) -> Callable[[object], str]:
    """τ²'s `to_json_str`, with its inner function made once."""
    code = next(part for part in kind.to_json_str.__code__.co_consts if isinstance(part, CodeType))
    itself = CellType()
    itself.cell_contents = process = FunctionType(code, kind.to_json_str.__globals__, closure=(itself,))
    return lambda answer: answer if isinstance(answer, str) else json.dumps(process(answer), default=str)


def evaluate_with_stubs(arguments: dict[str, Any], world: World, played: FastEnvironment) -> RewardInfo:
    """τ²'s `evaluate_simulation` of the episode of ``world``, which was played in ``played``.

    Raises:
        ReplayNeededError: before anything was evaluated that costs money.
    """
    played.environment.sync_tools()
    predicted = _Played(played.database_state(), played.environment)  # before any assertion runs, as in τ²
    key, known = gold_key(world), played.factory.gold
    gold = (
        _Ended(known[key][1])
        if key in known
        else _PlaysGold(played.factory.build(solo=False, env_kwargs=world.env_kwargs), world.task)
    )

    def build(**kwargs: object) -> _Ended | _PlaysGold:
        # τ² asks for the gold environment without a mode: gold actions are the user's and the agent's own.
        return predicted if "solo_mode" in kwargs else gold

    registry = SimpleNamespace(get_env_constructor={world.domain: build}.get)
    original = tau2_compat.load().evaluate_simulation
    evaluate = FunctionType(
        original.__code__, {**original.__globals__, "registry": registry}, argdefs=original.__defaults__
    )
    result: RewardInfo = evaluate(**arguments)
    if isinstance(gold, _PlaysGold) and gold.end is not None:
        # The entry goes with the task, and keeps what else the key names by id: no other object gets one of these ids.
        task = world.task
        alive = weakref.ref(task, lambda _: known.pop(key, None))
        known[key] = (alive, task.initial_state, task.evaluation_criteria.actions), gold.end
        while len(known) > MAX_GOLD:
            known.popitem(last=False)
    return result


@dataclass
class _Ended:
    """An environment in which everything that τ² asks for has been done; it says where that led.

    τ² compares the hashes of two environments and asks only whether both pairs are equal. So each is the whole state.
    """

    state: DatabaseState

    def set_state(self, *_: object, **__: object) -> None:
        """It is there already."""

    make_tool_call = set_state

    def get_db_hash(self) -> DatabaseState:
        return self.state

    get_user_db_hash = get_db_hash


@dataclass
class _Played(_Ended):
    """The environment in which the episode was played."""

    environment: Environment

    @property
    def run_env_assertion(self) -> Callable[..., bool]:
        run: Callable[..., bool] = self.environment.run_env_assertion
        return run

    @property
    def tools(self) -> _ToolNames | None:
        return _ToolNames.of(self.environment.tools)

    @property
    def user_tools(self) -> _ToolNames | None:
        return _ToolNames.of(self.environment.user_tools)


class _ToolNames:
    """A tool kit's names and types, without the schemas that τ² would build only to read the names."""

    _known: ClassVar[dict[type, tuple[str, ...]]] = {}
    """Class of a tool kit -> the tools that every kit of the class offers."""

    def __init__(self, kit: ToolKit) -> None:
        self._kit = kit
        self.tool_type = kit.tool_type

    @classmethod
    def of(cls, kit: ToolKit | None) -> _ToolNames | None:
        return None if kit is None else cls(kit)

    def get_tools(self) -> dict[str, None]:
        names = self._known.get(type(self._kit))
        if names is None:
            names = self._known[type(self._kit)] = tuple(self._kit.get_tools())
        return dict.fromkeys(names)


class _PlaysGold:
    """A fresh environment, in which τ² plays the gold actions; it remembers where they led."""

    def __init__(self, fresh: FastEnvironment, task: Task) -> None:
        self._task = task
        self._fresh = fresh
        self.end: DatabaseState | None = None

    def set_state(self, *, message_history: list[Message], **_: object) -> None:
        """τ² asks for the beginning of the task, which is known."""
        self._fresh.set_state(self._task, message_history)

    def make_tool_call(self, tool_name: str, **kwargs: Any) -> object:
        with self._fresh.access_of(tool_name):
            return self._fresh.environment.make_tool_call(tool_name, **kwargs)

    def get_db_hash(self) -> DatabaseState:
        self.end = self.end or self._fresh.database_state()
        return self.end

    get_user_db_hash = get_db_hash
