"""A domain's database, parsed once and shared: an episode copies a record when it first touches it for writing.

A τ² database is one pydantic model whose large fields are tables, ``dict[id, record]``. An episode gets the same model with
each table replaced by a `SharedTable`: a dict that holds the shared records themselves until one is asked for. Who only
reads (`SharedDatabase.reading`) gets the shared record; everyone else gets a private copy, which stays in the table.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

_GONE = "gone"


class Base:
    """The parsed database that all episodes of a process share. It is never written."""

    def __init__(self, db: BaseModel) -> None:
        """``db`` must not be used by anyone else from now on.

        Raises:
            NotShared: it holds no table of records.
        """
        self.db = db
        fields = type(db).model_fields
        self.tables = {name: table for name in fields if _is_table(table := getattr(db, name))}
        if not self.tables:
            raise NotShared(f"{type(db).__name__} holds no table")
        self.other_fields = [name for name in fields if name not in self.tables]
        self._others = pickle.dumps({name: getattr(db, name) for name in self.other_fields})
        self._pickled: dict[tuple[str, Any], bytes] = {}
        self._spelled: dict[tuple[str, Any], str] = {}

    def new(self) -> SharedDatabase:
        """A database for one episode; takes microseconds and some kilobytes."""
        return SharedDatabase(self)

    def copy_of_other_fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = pickle.loads(self._others)
        return fields

    def copy_of(self, table: str, key: Any) -> Any:
        """A private copy of a shared record."""
        blob = self._pickled.get((table, key))
        if blob is None:
            # Pickled twice: only of a copy are the bytes those of every untouched copy.
            copy = pickle.loads(pickle.dumps(self.tables[table][key]))
            blob = self._pickled[table, key] = pickle.dumps(copy)
        return pickle.loads(blob)

    def is_untouched(self, table: str, key: Any, record: Any) -> bool:
        """True if ``record`` is surely equal to the shared one; False if that takes a closer look."""
        blob = self._pickled.get((table, key))
        return blob is not None and blob == pickle.dumps(record)

    def spelling(self, table: str, key: Any) -> str:
        """A shared record in the JSON that τ² hashes."""
        text = self._spelled.get((table, key))
        if text is None:
            text = self._spelled[table, key] = spell(self.tables[table][key])
        return text


class _Who:
    """Who is using a database at the moment."""

    only_reads = False


class SharedTable(dict[Any, Any]):
    """One table of one episode: every record of the base, and the private copies of those that were touched."""

    __slots__ = ("_base", "_name", "_own", "_who")

    def __init__(self, base: Base, who: _Who, name: str, records: dict[Any, Any]) -> None:
        super().__init__(records)
        self._base, self._who, self._name = base, who, name
        self._own: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        record = super().__getitem__(key)
        if self._who.only_reads or key in self._own:
            return record
        copy = self._base.copy_of(self._name, key)
        super().__setitem__(key, copy)
        self._own.add(key)
        return copy

    def __setitem__(self, key: Any, record: Any) -> None:
        super().__setitem__(key, record)
        self._own.add(key)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self._own.add(key)

    def __iter__(self) -> Iterator[Any]:
        """Overridden so that ``dict(table)`` and ``{**table}`` ask for every record instead of taking the shared ones."""
        return super().__iter__()

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __ror__(self, other: Any) -> Any:
        return other | self.copy()

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def values(self) -> Any:
        self._take_all()
        return super().values()

    def items(self) -> Any:
        self._take_all()
        return super().items()

    def copy(self) -> dict[Any, Any]:
        return dict(self.items())

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        record = self[key]
        del self[key]
        return record

    def popitem(self) -> tuple[Any, Any]:
        if not self:
            return super().popitem()
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        self._own.update(self)
        super().clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, record in dict(*args, **kwargs).items():
            self[key] = record

    def __ior__(self, other: Any) -> SharedTable:
        self.update(other)
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled or copied deeply it is a plain table that shares nothing."""
        return dict, (dict(self),)

    def changed(self) -> Iterator[Any]:
        """Keys whose records may differ from the base's."""
        return iter(self._own)

    def _take_all(self) -> None:
        if not self._who.only_reads:
            for key in list(self):
                self[key]


class SharedDatabase:
    """One episode's database over a `Base`."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._who = _Who()  # not this object itself: a cycle would keep every episode until a full collection
        tables = {name: SharedTable(base, self._who, name, records) for name, records in base.tables.items()}
        fields = {**tables, **base.copy_of_other_fields()}
        self.db = type(base.db).model_construct(_fields_set=set(base.db.model_fields_set), **fields)
        self._tables = tables

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whoever runs inside only reads: records are not copied. To be promised by somebody who has proved it."""
        self._who.only_reads = True
        try:
            yield
        finally:
            self._who.only_reads = False

    def state(self) -> Hashable:
        """What differs from the base. Two databases of one base are equal (by τ²'s hash) exactly if their states are."""
        rest = {name: _plain(getattr(self.db, name)) for name in self.base.other_fields}
        differences: set[tuple[str, Any, str]] = set()
        for name, table in self._tables.items():
            current = getattr(self.db, name)
            if current is not table:  # a tool put another table in its place
                raise NotShared(f"the table {name} was replaced")
            shared = self.base.tables[name]
            for key in table.changed():
                if type(key) is not str:  # JSON would spell it as a text
                    raise NotShared(f"a key of {name} is no text")
                if key in table and self.base.is_untouched(name, key, dict.__getitem__(table, key)):
                    continue
                text = spell(dict.__getitem__(table, key)) if key in table else _GONE
                known = self.base.spelling(name, key) if key in shared else _GONE
                if text != known:
                    differences.add((name, key, text))
        return frozenset(differences), json.dumps(rest, **_AS_TAU2)

    def digest(self) -> str:
        """τ²'s ``get_db_hash`` of this database, put together from records that were spelled before."""
        if any(type(key) is not str for table in self._tables.values() for key in table.changed()):
            return str(self.db.get_hash())  # type: ignore[attr-defined]
        parts = []
        for name in sorted(type(self.db).model_fields):
            value, table = getattr(self.db, name), self._tables.get(name)
            if table is not None and value is table:
                records = (f"{json.dumps(key)}: {self._spelled(name, table, key)}" for key in sorted(table))
                text = "{" + ", ".join(records) + "}"
            else:
                text = json.dumps(_plain(value), **_AS_TAU2)
            parts.append(f"{json.dumps(name)}: {text}")
        return hashlib.sha256(("{" + ", ".join(parts) + "}").encode()).hexdigest()

    def _spelled(self, name: str, table: SharedTable, key: Any) -> str:
        return spell(dict.__getitem__(table, key)) if key in table._own else self.base.spelling(name, key)


class NotShared(Exception):
    """A database is no longer what its episode was given; the caller must look at all of it."""


_AS_TAU2: dict[str, Any] = {"sort_keys": True, "default": str}


def spell(record: Any) -> str:
    """A record in the JSON that τ² hashes."""
    return json.dumps(_plain(record), **_AS_TAU2)


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _is_table(value: Any) -> bool:
    return type(value) is dict and bool(value) and all(isinstance(record, BaseModel) for record in value.values())
