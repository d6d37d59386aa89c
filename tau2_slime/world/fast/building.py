"""Environments without parsing: a domain is read once per process, and episodes share or copy what was read.

`domains.World` asks `fast_environment`, the one door of this folder. Where that answers None, τ²'s own way is taken. Two
methods, per domain and environment arguments:

- ``shared``: τ²'s own constructor is given a `CopyOnWriteDatabase` (airline, retail, mock);
- ``copied``: a pickled environment, as τ²'s constructor built it, where the state is small (telecom, banking_knowledge).

A τ² database is one pydantic model whose fields are tables, ``dict[id, record]``. An episode gets the same model with each
table replaced by a `CopyOnWriteTable`: a dict that holds the shared records themselves until one is asked for. Code that
only reads (`CopyOnWriteDatabase.reading`) gets the shared record. All other code gets a private copy, which stays in the
table.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import BaseModel

from tau2_slime.runtime.garbage_collection import spare_what_stays
from tau2_slime.world import tau2_compat
from tau2_slime.world.fast.evaluation import DatabaseState, FastEnvironment, ReplayNeededError
from tau2_slime.world.fast.known_releases import verified_constructor

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

    from tau2_slime.world.types import Environment, InitializationData, ToolKit

T = TypeVar("T")

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
                _factories[kind] = None if constructor is None else EnvironmentFactory(constructor, env_kwargs)
                spare_what_stays()
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
        """(id of an `InitializationData`, kind of database) -> a weak reference to it, and what it makes of a database."""
        self._constructor = constructor
        self._parsed: ParsedDatabase | None = None
        self._pickled: dict[bool, bytes] = {}
        """By solo mode."""
        kit = constructor(**env_kwargs).tools
        self.read_only_tools = frozenset(name for name in kit.tools if kit.tool_type(name).value == "read")
        """Tools that were verified to only read the agent's database."""
        if holds_only_tables(kit.db):
            self._parsed = ParsedDatabase(kit.db)

    @property
    def method(self) -> Literal["shared", "copied"]:
        return "copied" if self._parsed is None else "shared"

    def build(self, *, solo: bool, env_kwargs: dict[str, Any]) -> FastEnvironment:
        """A fresh environment. Raises what τ²'s constructor raises (no solo mode in this domain)."""
        if self._parsed is not None:
            database = CopyOnWriteDatabase(self._parsed)
            environment = self._constructor(**env_kwargs, db=database.db, solo_mode=solo)
            return FastEnvironment(self, environment, database)
        if solo not in self._pickled:
            environment = self._constructor(**env_kwargs, solo_mode=solo)
            tau2_compat.own_class_state(environment)
            self._pickled[solo] = pickle.dumps(environment)
        environment = pickle.loads(self._pickled[solo])
        if "read_log_allowlist" in env_kwargs:
            environment.tools.set_read_log_allowlist(env_kwargs["read_log_allowlist"])
        return FastEnvironment(self, environment)

    def own_records(
        self, data: InitializationData, change: dict[str, Any], database: CopyOnWriteDatabase
    ) -> CopyOnWriteDatabase | None:
        """``database``, which nobody has used, with the ``change`` of ``data``; None if only τ²'s way is right."""
        try:
            own = self._once(data, "shared", lambda: OwnRecords(database.parsed, change))
        except (ReplayNeededError, ValueError):  # also what pydantic raises: τ² says it of the whole database
            return None
        return CopyOnWriteDatabase(database.parsed, own)

    def update_small_database(self, kit: ToolKit, data: InitializationData, change: dict[str, Any]) -> None:
        """Give a fresh ``kit`` the database that τ²'s `update_db` makes. Raises what that raises."""

        def updated() -> bytes:
            type(kit).update_db(kit, change)
            return pickle.dumps(kit.db)

        kit.db = pickle.loads(self._once(data, type(kit).__name__, updated))

    def _once(self, data: InitializationData, what: str, make: Callable[[], T]) -> T:
        """What ``make`` returns for ``data``, for as long as somebody has ``data``."""
        key, prepared = (id(data), what), self._prepared
        if key not in prepared:
            made = make()
            prepared[key] = weakref.ref(data, lambda _: prepared.pop(key, None)), made
        return cast("T", prepared[key][1])


_GONE = "gone"
_NOTHING: dict[Any, Any] = {}
"""Never written."""


def holds_only_tables(db: BaseModel) -> bool:
    """True if every field of ``db`` is a table of records, so that episodes can share it."""
    return all(
        type(table) is dict and all(isinstance(record, BaseModel) for record in table.values())
        for table in (getattr(db, name) for name in type(db).model_fields)
    )


class ParsedDatabase:
    """The database that all episodes of a process share. It is never written."""

    def __init__(self, db: BaseModel) -> None:
        """``db`` is one that `holds_only_tables`; it must not be used by anyone else from now on."""
        self.db = db
        self.tables: dict[str, dict[Hashable, object]] = {name: getattr(db, name) for name in type(db).model_fields}
        self.pickled: dict[str, dict[Hashable, bytes]] = {name: {} for name in self.tables}
        """Table -> key -> what a private copy is made from; filled as copies are asked for."""
        self.json: dict[tuple[str, Hashable], str] = {}
        """(table, key) -> `hashed_json` of the shared record; filled as it is asked for."""


class _AccessMode:
    """What the code that uses a database at the moment does with it."""

    only_reads = False


class CopyOnWriteTable(dict[Hashable, object]):
    """One table of one episode: every shared record, and the private copies of those that were touched."""

    __slots__ = ("_mode", "_own", "_own_pickled", "_pickled", "touched")

    def __init__(
        self,
        records: dict[Hashable, object],
        pickled: dict[Hashable, bytes],
        mode: _AccessMode,
        own: dict[Hashable, object] = _NOTHING,
        own_pickled: dict[Hashable, bytes] = _NOTHING,
    ) -> None:
        """``own``: the records that the episode's task has instead of, or besides, ``records``."""
        super().__init__(records)
        if own:
            super().update(own)
        self._pickled, self._mode, self._own, self._own_pickled = pickled, mode, own, own_pickled
        self.touched: set[Hashable] = set()
        """Keys whose records may differ from the shared ones."""

    def __getitem__(self, key: Hashable) -> object:
        record = super().__getitem__(key)
        if self._mode.only_reads or key in self.touched:
            return record
        blobs = self._own_pickled if key in self._own else self._pickled
        blob = blobs.get(key)
        if blob is None:
            blob = blobs[key] = pickle.dumps(record)
        copy: object = pickle.loads(blob)
        self[key] = copy
        return copy

    def __setitem__(self, key: Hashable, record: object) -> None:
        super().__setitem__(key, record)
        self.touched.add(key)

    def __delitem__(self, key: Hashable) -> None:
        super().__delitem__(key)
        self.touched.add(key)

    def __iter__(self) -> Iterator[Hashable]:
        """Overridden so that CPython copies (``dict(t)``, ``{**t}``, ``t | u``, ``t.copy()``) through `__getitem__`."""
        return super().__iter__()

    def get(self, key: Hashable, default: object = None, /) -> object:
        return self[key] if key in self else default  # noqa: SIM401

    def values(self) -> dict_values[Hashable, object]:
        self._copy_all()
        return super().values()

    def items(self) -> dict_items[Hashable, object]:
        self._copy_all()
        return super().items()

    def setdefault(self, key: Hashable, default: object = None, /) -> object:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Hashable, /, *default: object) -> object:
        if key not in self:
            return super().pop(key, *default)
        record = self[key]
        del self[key]
        return record

    def popitem(self) -> tuple[Hashable, object]:
        if not self:
            return super().popitem()
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        self.touched.update(self)
        super().clear()

    def update(self, *args: object, **kwargs: object) -> None:
        for key, record in dict(*args, **kwargs).items():
            self[key] = record

    def __ior__(self, other: object) -> CopyOnWriteTable:  # type: ignore[misc]
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: object) -> tuple[type[dict[Hashable, object]], tuple[dict[Hashable, object]]]:
        """Pickled or copied deeply it is a plain table that shares nothing."""
        return dict, (dict(self),)

    def _copy_all(self) -> None:
        if not self._mode.only_reads:
            for key in list(self):
                self[key]


class OwnRecords:
    """What one task changes of the shared database before its episodes begin; all its episodes share it."""

    def __init__(self, parsed: ParsedDatabase, change: dict[str, Any]) -> None:
        """``change`` is merged in by τ²'s own code, over no more than the records that it names.

        Raises:
            ReplayNeededError: it changes something else than records.
            ValidationError: τ² refuses it.
        """
        from tau2.utils.pydantic_utils import update_pydantic_model_with_dict

        if not (change.keys() <= parsed.tables.keys() and all(isinstance(rows, dict) for rows in change.values())):
            raise ReplayNeededError("initialization_data changes something else than records")
        before = {
            name: {key: rows[key] for key in change.get(name, ()) if key in rows}
            for name, rows in parsed.tables.items()
        }
        named = type(parsed.db).model_construct(_fields_set=set(parsed.db.model_fields_set), **before)
        after = update_pydantic_model_with_dict(named, change)
        self.tables: dict[str, dict[Hashable, object]] = {
            name: {key: record for key, record in getattr(after, name).items() if before[name].get(key) != record}
            for name in change
        }
        self.pickled: dict[str, dict[Hashable, bytes]] = {name: {} for name in change}
        self.json: dict[tuple[str, Hashable], str] = {}


class CopyOnWriteDatabase:
    """One episode's database over a `ParsedDatabase`. Making it takes microseconds and some kilobytes."""

    def __init__(self, parsed: ParsedDatabase, own: OwnRecords | None = None) -> None:
        self.parsed, self.own = parsed, own
        self._mode = _AccessMode()  # not this object itself: a cycle would keep every episode until a full collection
        tables, pickled = ({}, {}) if own is None else (own.tables, own.pickled)
        self.tables = {
            name: CopyOnWriteTable(
                records, parsed.pickled[name], self._mode, tables.get(name, _NOTHING), pickled.get(name, _NOTHING)
            )
            for name, records in parsed.tables.items()
        }
        self.db = type(parsed.db).model_construct(_fields_set=set(parsed.db.model_fields_set), **self.tables)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Records are not copied for the code inside, which must only read; the caller has verified that it does."""
        before, self._mode.only_reads = self._mode.only_reads, True
        try:
            yield
        finally:
            self._mode.only_reads = before

    def state(self) -> Hashable:
        """What differs from the beginning: equal exactly if τ²'s hashes are, for two databases that began alike.

        Raises:
            ReplayNeededError: a table was replaced, or a key is not a string, which JSON would turn into one.
        """
        differences: set[tuple[str, Hashable, str]] = set()
        for name, table in self.tables.items():
            if getattr(self.db, name) is not table:
                raise ReplayNeededError(f"the table {name} was replaced")
            shared = self.parsed.tables[name]
            own = self.own.tables.get(name, _NOTHING) if self.own is not None else _NOTHING
            for key in table.touched:
                if type(key) is not str:
                    raise ReplayNeededError(f"a key of {name} is not a string")
                began, before = (
                    (own, self.own.json) if self.own is not None and key in own else (shared, self.parsed.json)
                )
                if key in began and (name, key) not in before:
                    before[name, key] = hashed_json(began[key])
                now = hashed_json(dict.__getitem__(table, key)) if key in table else _GONE
                if now != before.get((name, key), _GONE):
                    differences.add((name, key, now))
        return frozenset(differences)


def hashed_json(record: object) -> str:
    """A record in the JSON that τ² hashes."""
    data = record.model_dump() if isinstance(record, BaseModel) else record
    return json.dumps(data, sort_keys=True, default=str)
