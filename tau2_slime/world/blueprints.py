"""Fresh environments without parsing: each domain's database is read once per process, episodes share or copy it.

Environments are still built by τ²'s own constructor; only the database is handed to it. Three ways, the best that is safe:

- `shared`: a `SharedDatabase`, for domains whose tools were proved to keep their promises (`proved`);
- `copied`: a private copy, for any domain whose constructor takes a database;
- `stock`: τ²'s constructor as it is.
"""

from __future__ import annotations

import inspect
import logging
import pickle
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from tau2_slime.errors import first_time
from tau2_slime.offload import settle
from tau2_slime.world import proved, tau2_compat
from tau2_slime.world.shared_db import Base, NotShared, SharedDatabase

logger = logging.getLogger(__name__)

Way = Literal["shared", "copied", "stock"]


@dataclass
class Built:
    """One episode's environment and how its database was made."""

    environment: Any
    database: SharedDatabase | None = None
    """The agent's database, if it is shared."""

    def state(self) -> tuple[Hashable, Hashable]:
        """The agent's and the user's database; equal exactly where τ²'s hashes are, for environments of one blueprint.

        Raises:
            NotShared: the database is not the one that the environment was built with.
        """
        if self.database is None:
            return self.environment.get_db_hash(), self.environment.get_user_db_hash()
        if self.environment.tools.db is not self.database.db:  # replaced by an update of the whole database
            raise NotShared("the database was replaced")
        return self.database.state(), self.environment.get_user_db_hash()


class Blueprint:
    """How to build the environments of one domain."""

    def __init__(self, domain: str, env_kwargs: dict[str, Any]) -> None:
        """Builds one environment, with τ²'s own reading of its files, to learn from."""
        self.domain = domain
        self.way: Way = "stock"
        self.reads: frozenset[str] = frozenset()
        """Tools that were proved only to read."""
        self._constructor = tau2_compat.load().registry.get_env_constructor(domain)
        self._base: Base | None = None
        self._databases = b""
        if proved.core() is None:
            if first_time("unproved τ²"):
                logger.warning(
                    "%s is not a τ² whose environments were proved here: its own code is used, same rewards but slower",
                    tau2_compat.version(),
                )
            return
        self._learn(env_kwargs)
        settle()

    def build(self, *, solo: bool, env_kwargs: dict[str, Any]) -> Built:
        """A fresh environment. Raises what τ²'s constructor raises (no solo mode in this domain)."""
        kwargs = {"solo_mode": True, **env_kwargs} if solo else dict(env_kwargs)
        if self._base is not None:
            database = self._base.new()
            return Built(self._constructor(db=database.db, **kwargs), database)
        if self.way == "copied":
            kwargs.update(pickle.loads(self._databases))
        return Built(self._constructor(**kwargs))

    def _learn(self, env_kwargs: dict[str, Any]) -> None:
        parameters = inspect.signature(self._constructor).parameters
        if "db" not in parameters or {"db", "user_db"} & set(env_kwargs):
            return
        example = self._constructor(**env_kwargs)
        db, user_db = example.tools.db, getattr(example.user_tools, "db", None)
        if user_db is None and proved.tools(self.domain, proved.package_of(self._constructor)) is not None:
            self.way, self._base = "shared", Base(db)
            kit = example.tools
            self.reads = frozenset(name for name in kit.tools if kit.tool_type(name).value == "read")
            return
        databases = {"db": db}
        if user_db is not None and user_db is not db:
            if "user_db" not in parameters:
                return
            databases["user_db"] = user_db
        self.way, self._databases = "copied", pickle.dumps(databases)


_lock = threading.Lock()
_blueprints: dict[str, Blueprint] = {}


def blueprint(domain: str, env_kwargs: dict[str, Any]) -> Blueprint:
    """The process's blueprint of ``domain``, learned by the first caller while the others wait (up to 0.5 s).

    ``env_kwargs`` shape the environment, not its database, so that all of a domain share one.
    """
    found = _blueprints.get(domain)
    if found is None:
        with _lock:
            found = _blueprints.get(domain)
            if found is None:
                found = _blueprints[domain] = Blueprint(domain, env_kwargs)
    return found
