"""Environments without parsing: a domain is read once per process, and episodes share or copy what was read.

`World` asks `fast_environment`, the one door of this folder. Where that answers None, τ²'s own way is taken. Two
methods, per domain and environment arguments:

- ``shared``: τ²'s own constructor is given a `shared_db.CopyOnWriteDatabase` (airline, retail, mock);
- ``copied``: a copy of the environment that τ²'s constructor built, from a `copies.EnvironmentTemplate` (telecom,
  banking_knowledge: their state is small).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tau2_slime.runtime.garbage_collection import builds_what_stays
from tau2_slime.world import tau2_compat
from tau2_slime.world.fast.content import data_said_by
from tau2_slime.world.fast.copies import EnvironmentTemplate, Template, shares_database
from tau2_slime.world.fast.evaluation import DatabaseState, FastEnvironment
from tau2_slime.world.fast.known_releases import verified_constructor
from tau2_slime.world.fast.reading import in_pieces
from tau2_slime.world.fast.replay_check import ReplayNeededError
from tau2_slime.world.fast.shared_db import (
    CopyOnWriteDatabase,
    OwnRecords,
    ParsedDatabase,
    holds_only_tables,
)

if TYPE_CHECKING:
    from tau2_slime.world.types import DB, Environment, InitializationData, InitialState, Task, ToolKit

T = TypeVar("T")

MAX_BEGUN = 500
"""Tasks whose beginning is kept, some 10 KB each: the episodes of one are played at about the same time."""

_lock = threading.Lock()
_factories: dict[str, EnvironmentFactory | None] = {}
"""Kind of environment -> its factory; None where none was verified."""


def fast_environment(domain: str, kind: str, *, solo: bool, env_kwargs: dict[str, Any]) -> FastEnvironment | None:
    """An environment of ``domain``; None if its sources or arguments are not among those that were verified.

    The first caller of a ``kind`` (`World.kind`) reads the domain, up to 0.5 s, while the others wait.
    Raises what τ²'s constructor raises (no solo mode in this domain).
    """
    if kind not in _factories:
        with _lock:
            if kind not in _factories:
                constructor = verified_constructor(domain, env_kwargs)
                with builds_what_stays(), in_pieces():
                    _factories[kind] = None if constructor is None else EnvironmentFactory(constructor, env_kwargs)
    factory = _factories[kind]
    return None if factory is None else factory.build(solo=solo, env_kwargs=env_kwargs)


def _in_a_forked_child() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


class EnvironmentFactory:
    """Builds the environments of one domain."""

    def __init__(self, constructor: Callable[..., Environment], env_kwargs: dict[str, Any]) -> None:
        """Builds one environment, with τ²'s own reading of its files, to learn from."""
        self.gold: OrderedDict[Hashable, tuple[object, DatabaseState]] = OrderedDict()
        """`gold_key` of a task -> what keeps the key unique, and the task's gold end state."""
        self._prepared: dict[tuple[int, str], tuple[object, object]] = {}
        """(id of a task or a part of it, what is made of it) -> a weak reference to it, and what it makes."""
        self._begun: OrderedDict[tuple[int, str], tuple[InitialState, EnvironmentTemplate]] = OrderedDict()
        """(id of a task's initial state, what it says) -> the state itself, which keeps its id, and what begins with it."""
        self._constructor = constructor
        self._parsed: ParsedDatabase | None = None
        self._templates: dict[bool, EnvironmentTemplate] = {}
        """By solo mode."""
        environment = constructor(**env_kwargs)
        kit = environment.tools
        self._indexes = {
            name: value for name, value in vars(kit).items() if type(value).__module__.startswith("tau2.knowledge")
        }
        """Attribute of the tool kit -> an index over documents. A search only reads it, so all episodes share it."""
        self.read_only_tools = frozenset(name for name in kit.tools if kit.tool_type(name).value == "read")
        """Tools that were verified to only read the agent's database."""
        if holds_only_tables(kit.db):
            self._parsed = ParsedDatabase(kit.db)

    def build(self, *, solo: bool, env_kwargs: dict[str, Any]) -> FastEnvironment:
        """A fresh environment. Raises what τ²'s constructor raises (no solo mode in this domain)."""
        if self._parsed is not None:
            database = CopyOnWriteDatabase(self._parsed)
            environment = self._constructor(**env_kwargs, db=database.db, solo_mode=solo)
            return FastEnvironment(self, environment, database)
        if solo not in self._templates:
            environment = self._constructor(**env_kwargs, solo_mode=solo)
            tau2_compat.own_class_state(environment)
            vars(environment.tools).update(self._indexes)
            self._templates[solo] = EnvironmentTemplate(environment, self._indexes.values())
        environment = self._templates[solo].copy()
        if env_kwargs.get("retrieval_variant") == "golden_retrieval":  # the one variant whose policy is the task's
            environment.policy = self._once(
                env_kwargs["task"], "policy", lambda: self._constructor(**env_kwargs).policy
            )
        if "read_log_allowlist" in env_kwargs:
            environment.tools.set_read_log_allowlist(env_kwargs["read_log_allowlist"])
        return FastEnvironment(self, environment)

    def own_records(
        self, data: InitializationData, change: dict[str, Any], database: CopyOnWriteDatabase
    ) -> CopyOnWriteDatabase | None:
        """``database``, which nobody has used, with the ``change`` of ``data``; None if only τ²'s way is right."""
        try:
            own = self._once(data, f"shared {data_said_by(data)}", lambda: OwnRecords(database.parsed, change))
        except (ReplayNeededError, ValueError):  # also what pydantic raises: τ² says it of the whole database
            return None
        return CopyOnWriteDatabase(database.parsed, own)

    def begun(self, task: Task, environment: Environment) -> Environment | None:
        """A fresh ``environment`` after τ²'s `set_state` for ``task``, which runs once; None if it must run every time.

        Nobody may use ``environment`` from then on. Raises what `set_state` raises.
        """
        initial = task.initial_state
        if initial is None or not shares_database(environment.tools):
            return None

        # By what it says, too: a task may be edited in place.
        key = id(initial), f"{environment.solo_mode} {initial.model_dump_json()}"
        if (found := self._begun.get(key)) is None:
            environment.set_state(initial.initialization_data, initial.initialization_actions, [])
            found = initial, EnvironmentTemplate(environment, earlier=self._templates[environment.solo_mode])
            self._begun[key] = found
            while len(self._begun) > MAX_BEGUN:
                self._begun.popitem(last=False)
        return found[1].copy()

    def update_small_database(self, kit: ToolKit, data: InitializationData, change: dict[str, Any]) -> None:
        """Give a fresh ``kit`` the database that τ²'s `update_db` makes. Raises what that raises."""

        def updated() -> Template[DB]:
            type(kit).update_db(kit, change)
            return Template(kit.db)

        kit.db = self._once(data, f"{type(kit).__name__} {data_said_by(data)}", updated).copy()

    def _once(self, data: InitializationData | Task, what: str, make: Callable[[], T]) -> T:
        """What ``make`` returns for ``data``, for as long as somebody has ``data``."""
        key, prepared = (id(data), what), self._prepared
        if key not in prepared:
            made = make()
            prepared[key] = weakref.ref(data, lambda _: prepared.pop(key, None)), made
        return cast("T", prepared[key][1])
