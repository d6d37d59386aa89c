"""Copies of τ²'s environments and records, which hold no more of their own than an episode may change.

Hundreds of episodes hold copies, and a full garbage collection walks all of it. So copies share what no code of τ² writes,
and a telecom episode shares the whole database of its task until a method of the tool kit is about to write to it.
"""

from __future__ import annotations

import functools
import io
import pickle
import types
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from tau2_slime.world.fast.known_releases import NEVER_WRITTEN, WRITERS

if TYPE_CHECKING:
    from tau2_slime.world.types import DB, Environment, ToolKit

T = TypeVar("T")


class Template(Generic[T]):
    """What copies of one value are made from: a record, a database, or a whole environment.

    They share records of the classes in `NEVER_WRITTEN`, and the sets that name a record's fields. pydantic reads these for
    ``exclude_unset``, which τ² does not use.
    """

    def __init__(self, value: T, shared: Iterable[object] = ()) -> None:
        """``shared``: parts of ``value`` that its copies share as well. Nobody may write to ``value`` from now on."""
        data = io.BytesIO()
        pickler = _SharingPickler(data, shared)
        pickler.dump(value)
        self._pickled, self._shared = data.getvalue(), pickler.shared

    def copy(self) -> T:
        """A copy, as `pickle` makes it."""
        made: T = _SharingUnpickler(self._pickled, self._shared).load()
        return made


class _SharingPickler(pickle.Pickler):
    """Writes a number in the place of each part that is shared."""

    def __init__(self, data: io.BytesIO, shared: Iterable[object]) -> None:
        super().__init__(data)
        self.shared: list[object] = []
        """In the order of the numbers."""
        self._numbers: dict[int, int] = {}
        """By `id`."""
        self._named: dict[frozenset[str], set[str]] = {}
        for part in shared:
            self._share(part)

    def _share(self, part: object) -> None:
        if id(part) not in self._numbers:
            self._numbers[id(part)] = len(self.shared)
            self.shared.append(part)

    def persistent_id(self, value: object) -> int | None:
        if type(value).__name__ in NEVER_WRITTEN.get(type(value).__module__, ()):
            self._share(value)
        return self._numbers.get(id(value))

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, BaseModel):
            return NotImplemented
        made = value.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
        state: Any = made[2]
        names = state[_FIELDS_SET]
        names = state[_FIELDS_SET] = self._named.setdefault(frozenset(names), names)
        self._share(names)
        return made


_FIELDS_SET = "__pydantic_fields_set__"


class _SharingUnpickler(pickle.Unpickler):
    """Reads what `_SharingPickler` wrote."""

    def __init__(self, data: bytes, shared: list[object]) -> None:
        super().__init__(io.BytesIO(data))
        self._shared = shared

    def persistent_load(self, number: int) -> object:
        return self._shared[number]


def shares_database(kit: ToolKit | None) -> bool:
    """True if ``kit`` is of a class whose methods that write are known, so that copies may share its database."""
    return _name(type(kit)) in WRITERS


def _name(kit: type) -> str:
    return f"{kit.__module__}.{kit.__qualname__}"


class EnvironmentTemplate:
    """What copies of one environment are made from, as far as it is now."""

    def __init__(
        self, environment: Environment, shared: Iterable[object] = (), *, earlier: EnvironmentTemplate | None = None
    ) -> None:
        """``shared``: parts that its copies share, besides the policy. Nobody may use ``environment``, which may come from
        an ``earlier`` template, from now on.
        """
        if earlier is not None and earlier._database is not None:
            _share_equal_records(environment.tools.db, earlier._database.db)
        self._database: _SharedDatabase | None = None
        parts = [*shared, environment.policy]
        if shares_database(environment.tools):
            self._database = _SharedDatabase(environment.tools.db)
            parts.append(self._database.db)
        self._template = Template(environment, parts)

    def copy(self) -> Environment:
        """An environment like the one that was given."""
        environment = self._template.copy()
        if self._database is not None:
            kit: Any = environment.tools
            kit.__class__ = _copies_first(kit.__class__)
            kit.shared_database = self._database
        return environment


def _share_equal_records(db: DB, others: DB) -> None:
    """Let lists of ``db`` hold the records of ``others`` where they are equal: most tasks begin with one other record."""
    for name in type(db).model_fields:
        records = getattr(db, name)
        for position, (record, other) in enumerate(zip(records, getattr(others, name), strict=False)):
            if record is not other and record == other:
                records[position] = other


class _SharedDatabase:
    """A database that episodes read until they write to a copy."""

    def __init__(self, db: DB) -> None:
        self.db = db
        self.hash: str | None = None
        """τ²'s, as soon as somebody asked for it."""

    @functools.cached_property
    def template(self) -> Template[DB]:
        return Template(self.db)


@functools.cache
def _copies_first(kit: type[ToolKit]) -> type[ToolKit]:
    """``kit`` whose methods that write copy a shared database first."""

    def copying(name: str) -> Callable[..., object]:
        @functools.wraps(getattr(kit, name))
        def call(self: Any, *args: object, **kwargs: object) -> object:
            if self.db is self.shared_database.db:
                self.db = self.shared_database.template.copy()
            return getattr(kit, name)(self, *args, **kwargs)

        return call

    def get_db_hash(self: Any) -> str:
        known = self.shared_database
        if self.db is not known.db:
            return str(kit.get_db_hash(self))
        if known.hash is None:
            known.hash = str(kit.get_db_hash(self))
        return str(known.hash)

    def reduced(self: Any, _: object) -> tuple[object, ...]:
        """Pickled or copied deeply it is a plain kit that shares nothing."""
        return _plain, (kit, {name: value for name, value in vars(self).items() if name != "shared_database"})

    named = {"__module__": kit.__module__, "__qualname__": kit.__qualname__}
    made: type[ToolKit] = types.new_class(kit.__name__, (kit,), exec_body=lambda namespace: namespace.update(named))
    # Set later: what is given at once would come first in the order of τ²'s tools.
    copies = {name: copying(name) for name in WRITERS[_name(kit)]}
    for name, method in {**copies, "get_db_hash": get_db_hash, "__reduce_ex__": reduced}.items():
        setattr(made, name, method)
    return made


def _plain(kit: type[T], state: dict[str, object]) -> T:
    made = kit.__new__(kit)
    vars(made).update(state)
    return made
