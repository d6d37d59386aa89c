"""A database that all episodes of a process share, and that each of them may write to.

A τ² database is one pydantic model whose fields are tables, ``dict[id, record]``. An episode gets the same model with each
table replaced by a `CopyOnWriteTable`: a dict that holds the shared records themselves until one is asked for. Code that
only reads (`CopyOnWriteDatabase.reading`) gets the shared record. All other code gets a private copy, which stays in the
table.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tau2_slime.world.fast.copies import Template
from tau2_slime.world.fast.replay_check import ReplayNeededError

if TYPE_CHECKING:
    from _collections_abc import dict_items, dict_values

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
        self.templates: dict[str, dict[Hashable, Template[object]]] = {name: {} for name in self.tables}
        """Table -> key -> what a private copy is made from; filled as copies are asked for."""
        self.json: dict[tuple[str, Hashable], str] = {}
        """(table, key) -> `hashed_json` of the shared record; filled as it is asked for."""


class _AccessMode:
    """What the code that uses a database at the moment does with it."""

    only_reads = False


class CopyOnWriteTable(dict[Hashable, object]):
    """One table of one episode: every shared record, and the private copies of those that were touched."""

    __slots__ = ("_mode", "_own", "_own_templates", "_templates", "touched")

    def __init__(
        self,
        records: dict[Hashable, object],
        templates: dict[Hashable, Template[object]],
        mode: _AccessMode,
        own: dict[Hashable, object] = _NOTHING,
        own_templates: dict[Hashable, Template[object]] = _NOTHING,
    ) -> None:
        """``own``: the records that the episode's task has instead of, or besides, ``records``."""
        super().__init__(records)
        if own:
            super().update(own)
        self._templates, self._mode, self._own, self._own_templates = templates, mode, own, own_templates
        self.touched: set[Hashable] = set()
        """Keys whose records may differ from the shared ones."""

    def __getitem__(self, key: Hashable) -> object:
        record = super().__getitem__(key)
        if self._mode.only_reads or key in self.touched:
            return record
        templates = self._own_templates if key in self._own else self._templates
        template = templates.get(key)
        if template is None:
            template = templates[key] = Template(record)
        copy = template.copy()
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
        self.templates: dict[str, dict[Hashable, Template[object]]] = {name: {} for name in change}
        self.json: dict[tuple[str, Hashable], str] = {}


class CopyOnWriteDatabase:
    """One episode's database over a `ParsedDatabase`. Making it takes microseconds and some kilobytes."""

    def __init__(self, parsed: ParsedDatabase, own: OwnRecords | None = None) -> None:
        self.parsed, self.own = parsed, own
        self._mode = _AccessMode()  # not this object itself: a cycle would keep every episode until a full collection
        tables, templates = ({}, {}) if own is None else (own.tables, own.templates)
        self.tables = {
            name: CopyOnWriteTable(
                records, parsed.templates[name], self._mode, tables.get(name, _NOTHING), templates.get(name, _NOTHING)
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
