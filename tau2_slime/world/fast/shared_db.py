"""A domain's database, parsed once and shared: an episode copies a record when it first touches it for writing.

A τ² database is one pydantic model whose large fields are tables, ``dict[id, record]``. An episode gets the same model with
each table replaced by a `CopyOnWriteTable`: a dict that holds the shared records themselves until one is asked for. Code
that only reads (`CopyOnWriteDatabase.reading`) gets the shared record. All other code gets a private copy, which stays in
the table.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

_GONE = "gone"


class NotShared(Exception):
    """A database is no longer what its episode was given; the caller must look at all of it."""


class ParsedDatabase:
    """The database that all episodes of a process share. It is never written."""

    def __init__(self, db: BaseModel) -> None:
        """``db`` must not be used by anyone else from now on.

        Raises:
            NotShared: it holds no table of records.
        """
        self.db = db
        fields = type(db).model_fields
        self.tables: dict[str, dict[Hashable, object]] = {
            name: table for name in fields if _is_table(table := getattr(db, name))
        }
        if not self.tables:
            raise NotShared(f"{type(db).__name__} holds no table")
        self.other_fields = [name for name in fields if name not in self.tables]
        self._others = pickle.dumps({name: getattr(db, name) for name in self.other_fields})
        self._pickled: dict[tuple[str, Hashable], bytes] = {}
        self._json: dict[tuple[str, Hashable], str] = {}

    def new_episode(self) -> CopyOnWriteDatabase:
        """A database for one episode; takes microseconds and some kilobytes."""
        return CopyOnWriteDatabase(self)

    def copy_of_other_fields(self) -> dict[str, Any]:
        """A private copy of every field that is not a table."""
        fields: dict[str, Any] = pickle.loads(self._others)
        return fields

    def copy_of(self, table: str, key: Hashable) -> object:
        """A private copy of a shared record."""
        blob = self._pickled.get((table, key))
        if blob is None:
            # Pickled twice: only of a copy are the bytes those of every untouched copy.
            copy = pickle.loads(pickle.dumps(self.tables[table][key]))
            blob = self._pickled[table, key] = pickle.dumps(copy)
        return pickle.loads(blob)

    def is_untouched(self, table: str, key: Hashable, record: object) -> bool:
        """True if ``record`` is surely equal to the shared one; False if that takes a closer look."""
        blob = self._pickled.get((table, key))
        return blob is not None and blob == pickle.dumps(record)

    def json_of(self, table: str, key: Hashable) -> str:
        """`hashed_json` of a shared record."""
        text = self._json.get((table, key))
        if text is None:
            text = self._json[table, key] = hashed_json(self.tables[table][key])
        return text


class _AccessMode:
    """What the code that uses a database at the moment does with it."""

    only_reads = False


class CopyOnWriteTable(dict[Hashable, object]):
    """One table of one episode: every shared record, and the private copies of those that were touched."""

    __slots__ = ("_mode", "_name", "_own", "_parsed")

    def __init__(self, parsed: ParsedDatabase, mode: _AccessMode, name: str, records: dict[Hashable, object]) -> None:
        super().__init__(records)
        self._parsed, self._mode, self._name = parsed, mode, name
        self._own: set[Hashable] = set()

    def changed(self) -> Iterator[Hashable]:
        """Keys whose records may differ from the shared ones."""
        return iter(self._own)

    def __getitem__(self, key: Hashable) -> object:
        record = super().__getitem__(key)
        if self._mode.only_reads or key in self._own:
            return record
        copy = self._parsed.copy_of(self._name, key)
        super().__setitem__(key, copy)
        self._own.add(key)
        return copy

    def __setitem__(self, key: Hashable, record: object) -> None:
        super().__setitem__(key, record)
        self._own.add(key)

    def __delitem__(self, key: Hashable) -> None:
        super().__delitem__(key)
        self._own.add(key)

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
        self._own.update(self)
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


class CopyOnWriteDatabase:
    """One episode's database over a `ParsedDatabase`."""

    def __init__(self, parsed: ParsedDatabase) -> None:
        self.parsed = parsed
        self._mode = _AccessMode()  # not this object itself: a cycle would keep every episode until a full collection
        self.tables = {name: CopyOnWriteTable(parsed, self._mode, name, table) for name, table in parsed.tables.items()}
        fields = {**self.tables, **parsed.copy_of_other_fields()}
        self.db = type(parsed.db).model_construct(_fields_set=set(parsed.db.model_fields_set), **fields)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Records are not copied for the code inside, which must only read; the caller has verified that it does."""
        self._mode.only_reads = True
        try:
            yield
        finally:
            self._mode.only_reads = False

    def state(self) -> Hashable:
        """What differs from the parsed database: equal for two of its databases exactly if τ²'s hashes of them are.

        Raises:
            NotShared: a table was replaced, or a key is not a string, which JSON would turn into one.
        """
        differences: set[tuple[str, Hashable, str]] = set()
        for name, table in self.tables.items():
            if getattr(self.db, name) is not table:
                raise NotShared(f"the table {name} was replaced")
            for key in table.changed():
                if type(key) is not str:
                    raise NotShared(f"a key of {name} is not a string")
                if key in table and self.parsed.is_untouched(name, key, dict.__getitem__(table, key)):
                    continue
                text = hashed_json(dict.__getitem__(table, key)) if key in table else _GONE
                known = self.parsed.json_of(name, key) if key in self.parsed.tables[name] else _GONE
                if text != known:
                    differences.add((name, key, text))
        others = {name: _dumped(getattr(self.db, name)) for name in self.parsed.other_fields}
        return frozenset(differences), _json_as_tau2(others)


def hashed_json(record: object) -> str:
    """A record in the JSON that τ² hashes."""
    return _json_as_tau2(_dumped(record))


def _json_as_tau2(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _dumped(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value


def _is_table(value: object) -> bool:
    return type(value) is dict and bool(value) and all(isinstance(record, BaseModel) for record in value.values())
