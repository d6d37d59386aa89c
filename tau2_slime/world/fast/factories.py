"""Fresh environments without parsing: each domain is read once per process, and episodes share or copy what was read.

The best method that is safe, per domain and environment arguments:

- ``shared``: τ²'s own constructor is given a `CopyOnWriteDatabase` (airline, retail, mock);
- ``copied``: a pickled environment, as τ²'s constructor built it, where the state is small (telecom, banking_knowledge).

What was not verified has no factory.
"""

from __future__ import annotations

import inspect
import logging
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tau2_slime.errors import first_time
from tau2_slime.runtime.garbage_collection import spare_what_stays
from tau2_slime.world import tau2_compat
from tau2_slime.world.environments import TASK_ARGUMENTS, environment_key
from tau2_slime.world.fast import known_releases
from tau2_slime.world.fast.shared_db import CopyOnWriteDatabase, NotShared, ParsedDatabase

if TYPE_CHECKING:
    from tau2_slime.world.types import Environment

logger = logging.getLogger(__name__)

DatabaseState = tuple[Hashable, Hashable]
"""The agent's and the user's database, comparable between environments of one factory."""

VERIFIED_ARGUMENTS = frozenset({"policy_type", "retrieval_variant", *TASK_ARGUMENTS})
"""Arguments of τ²'s environment constructors under which the fast environments were compared with τ²'s own."""


@dataclass
class BuiltEnvironment:
    """One environment and its database."""

    environment: Environment
    database: CopyOnWriteDatabase | None = None
    """The agent's database if its records are shared with other episodes."""

    def database_state(self) -> DatabaseState:
        """Equal for two environments of one factory exactly if τ²'s database hashes are.

        Raises:
            NotShared: a tool replaced the database with another one.
        """
        environment, database = self.environment, self.database
        if database is None:
            agent = environment.get_db_hash()
            same = environment.user_tools is not None and environment.user_tools.db is environment.tools.db
            return agent, agent if same else environment.get_user_db_hash()
        if environment.tools.db is not database.db:
            raise NotShared("the database was replaced")
        return database.state(), environment.get_user_db_hash()


class EnvironmentFactory:
    """Builds the environments of one domain."""

    def __init__(self, constructor: Callable[..., Environment], env_kwargs: dict[str, Any]) -> None:
        """Builds one environment, with τ²'s own reading of its files, to learn from."""
        self.gold: OrderedDict[Hashable, tuple[object, DatabaseState]] = OrderedDict()
        """Key of a task -> what keeps the key unique, and the task's gold end state (`evaluator_stubs`)."""
        self.read_only_tools: frozenset[str] = frozenset()
        """Tools that were verified to only read the agent's database."""
        self._constructor = constructor
        self._parsed: ParsedDatabase | None = None
        self._pickled: dict[bool, bytes] = {}
        example = self._construct(False, env_kwargs)
        if example.user_tools is None and "db" in inspect.signature(constructor).parameters:
            try:
                self._parsed = ParsedDatabase(example.tools.db)
            except NotShared:
                return
            kit = example.tools
            self.read_only_tools = frozenset(name for name in kit.tools if kit.tool_type(name).value == "read")

    @property
    def method(self) -> Literal["shared", "copied"]:
        return "copied" if self._parsed is None else "shared"

    def build(self, *, solo: bool, env_kwargs: dict[str, Any]) -> BuiltEnvironment:
        """A fresh environment. Raises what τ²'s constructor raises (no solo mode in this domain)."""
        if self._parsed is not None:
            database = self._parsed.new_episode()
            return BuiltEnvironment(self._construct(solo, {**env_kwargs, "db": database.db}), database)
        environment = pickle.loads(self._pickled.get(solo) or self._pickle(solo, env_kwargs))
        if "read_log_allowlist" in env_kwargs:
            environment.tools.set_read_log_allowlist(env_kwargs["read_log_allowlist"])
        return BuiltEnvironment(environment)

    def _construct(self, solo: bool, kwargs: dict[str, Any]) -> Environment:
        return self._constructor(solo_mode=True, **kwargs) if solo else self._constructor(**kwargs)

    def _pickle(self, solo: bool, env_kwargs: dict[str, Any]) -> bytes:
        environment = self._construct(solo, env_kwargs)
        tau2_compat.own_class_state(environment)
        self._pickled[solo] = pickle.dumps(environment)
        return self._pickled[solo]


def _verified_constructor(domain: str, env_kwargs: dict[str, Any]) -> Callable[..., Environment] | None:
    """τ²'s constructor for ``domain``, if fast environments were compared with what it builds."""
    constructor: Callable[..., Environment] = tau2_compat.load().registry.get_env_constructor(domain)
    if not known_releases.is_verified(constructor):
        what = f"{tau2_compat.version()}'s {domain}"
        if first_time("unverified sources of τ²", what):
            logger.warning(
                "the fast environments were not compared with this source of %s: τ²'s own code builds and scores its "
                "episodes, with the same rewards, more slowly",
                what,
            )
        return None
    if set(env_kwargs) - VERIFIED_ARGUMENTS:
        return None
    if env_kwargs.get("retrieval_variant", "no_knowledge") != "no_knowledge":
        return None  # retrieval keeps indexes, clocks and sandboxes
    return constructor


_lock = threading.Lock()
_factories: dict[str, EnvironmentFactory | None] = {}
"""`environment_key` -> its factory; None where there is none."""


def factory_of(domain: str, env_kwargs: dict[str, Any]) -> EnvironmentFactory | None:
    """The process's factory, made by the first caller while the others wait (up to 0.5 s); None if nothing was verified."""
    key = environment_key(domain, env_kwargs)
    if key not in _factories:
        with _lock:
            if key not in _factories:
                constructor = _verified_constructor(domain, env_kwargs)
                _factories[key] = None if constructor is None else EnvironmentFactory(constructor, env_kwargs)
                spare_what_stays()
    return _factories[key]


def known_factory(domain: str, env_kwargs: dict[str, Any]) -> EnvironmentFactory | None:
    """The factory if this process has made it; None otherwise."""
    return _factories.get(environment_key(domain, env_kwargs))


def _in_a_forked_child() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)
