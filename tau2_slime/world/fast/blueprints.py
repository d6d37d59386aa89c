"""Fresh environments without parsing: each domain is read once per process, episodes share or copy what was read.

The best way that is safe, per domain and environment arguments:

- ``shared``: τ²'s own constructor is handed a `SharedDatabase` (airline, retail, mock);
- ``copied``: a pickled environment, as τ²'s constructor built it, where the state is small (telecom, banking_knowledge);
- ``stock``: τ²'s constructor as it is, for everything that was not proved.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from tau2_slime.errors import first_time
from tau2_slime.runtime.garbage_collection import spare_what_stays
from tau2_slime.world import tau2_compat
from tau2_slime.world.fast import known_releases
from tau2_slime.world.fast.shared_db import Base, NotShared, SharedDatabase

logger = logging.getLogger(__name__)

Way = Literal["shared", "copied", "stock"]
State = tuple[Hashable, Hashable]

_OF_THE_TASK = ("task", "read_log_allowlist")
"""Environment arguments that differ between the tasks of one domain."""


@dataclass
class Built:
    """One episode's environment and how its database was made."""

    environment: Any
    database: SharedDatabase | None = None
    """The agent's database, if it is shared."""

    def state(self) -> State:
        """The agent's and the user's database; equal exactly where τ²'s hashes are, for environments of one blueprint.

        Raises:
            NotShared: the database is not the one that the environment was built with.
        """
        if self.database is None:
            return self.hashes()
        if self.environment.tools.db is not self.database.db:  # replaced by an update of the whole database
            raise NotShared("the database was replaced")
        return self.database.state(), self.environment.get_user_db_hash()

    def hashes(self) -> tuple[str | None, str | None]:
        """τ²'s ``get_db_hash`` and ``get_user_db_hash``."""
        environment, database = self.environment, self.database
        if database is not None and environment.tools.db is database.db:
            return database.digest(), environment.get_user_db_hash()
        agent = environment.get_db_hash()
        same = environment.user_tools is not None and environment.user_tools.db is environment.tools.db
        return agent, agent if same else environment.get_user_db_hash()

    def __getstate__(self) -> dict[str, Any]:
        """Pickled, the environment is a plain one that shares nothing."""
        return {"environment": self.environment, "database": None}


class Blueprint:
    """How to build the environments of one domain."""

    def __init__(self, domain: str, env_kwargs: dict[str, Any]) -> None:
        """Builds one environment, with τ²'s own reading of its files, to learn from."""
        self.key = _key(domain, env_kwargs)
        """One text for one blueprint."""
        self.way: Way = "stock"
        self.reads: frozenset[str] = frozenset()
        """Tools that were proved only to read."""
        self.gold: OrderedDict[Hashable, Any] = OrderedDict()
        """What scoring keeps of this domain's tasks (`stand_ins`)."""
        self._constructor = tau2_compat.load().registry.get_env_constructor(domain)
        self._base: Base | None = None
        self._pickled: dict[bool, bytes] = {}
        if known_releases.core() is None or known_releases.tools(known_releases.package_of(self._constructor)) is None:
            what = f"{tau2_compat.version()}'s {domain}"
            if first_time(f"unproved: {what}"):
                logger.warning(
                    "the source of %s is not one that the fast environments were proved equal to: τ²'s own code builds and "
                    "scores its episodes, slower and just as right",
                    what,
                )
            return
        self._learn(env_kwargs)
        spare_what_stays()

    def build(self, *, solo: bool, env_kwargs: dict[str, Any]) -> Built:
        """A fresh environment. Raises what τ²'s constructor raises (no solo mode in this domain)."""
        if self.way == "copied":
            environment = pickle.loads(self._pickled.get(solo) or self._pickle(solo, env_kwargs))
            if "read_log_allowlist" in env_kwargs:
                environment.tools.set_read_log_allowlist(env_kwargs["read_log_allowlist"])
            return Built(environment)
        if self._base is not None:
            database = self._base.new()
            return Built(self._construct(solo, {**env_kwargs, "db": database.db}), database)
        return Built(self._construct(solo, env_kwargs))

    def _construct(self, solo: bool, kwargs: dict[str, Any]) -> Any:
        return self._constructor(solo_mode=True, **kwargs) if solo else self._constructor(**kwargs)

    def _learn(self, env_kwargs: dict[str, Any]) -> None:
        if set(env_kwargs) - {"policy_type", "retrieval_variant", *_OF_THE_TASK}:
            return
        if env_kwargs.get("retrieval_variant", "no_knowledge") != "no_knowledge":
            return  # retrieval keeps indexes, clocks and sandboxes
        example = self._construct(False, env_kwargs)
        if example.user_tools is None and "db" in inspect.signature(self._constructor).parameters:
            try:
                self._base = Base(example.tools.db)
            except NotShared:
                self._base = None
        if self._base is not None:
            self.way = "shared"
            kit = example.tools
            self.reads = frozenset(name for name in kit.tools if kit.tool_type(name).value == "read")
        else:
            self.way = "copied"

    def _pickle(self, solo: bool, env_kwargs: dict[str, Any]) -> bytes:
        environment = self._construct(solo, env_kwargs)
        tau2_compat.own_class_state(environment)
        self._pickled[solo] = pickle.dumps(environment)
        return self._pickled[solo]


_lock = threading.Lock()
_blueprints: dict[str, Blueprint] = {}


def blueprint(domain: str, env_kwargs: dict[str, Any]) -> Blueprint:
    """The process's blueprint, learned by the first caller while the others wait (up to 0.5 s)."""
    key = _key(domain, env_kwargs)
    found = _blueprints.get(key)
    if found is None:
        with _lock:
            found = _blueprints.get(key)
            if found is None:
                found = _blueprints[key] = Blueprint(domain, env_kwargs)
    return found


def is_quick(domain: str, env_kwargs: dict[str, Any]) -> bool:
    """True if building an environment takes less than handing the work to another thread."""
    found = _blueprints.get(_key(domain, env_kwargs))
    return found is not None and found.way != "stock"


def _key(domain: str, env_kwargs: dict[str, Any]) -> str:
    if not env_kwargs:
        return domain
    settings = {key: value for key, value in env_kwargs.items() if key not in _OF_THE_TASK}
    return f"{domain} {json.dumps(settings, sort_keys=True, default=str)}"


def _in_a_forked_child() -> None:
    global _lock
    _lock = threading.Lock()  # the thread that held it does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)
