"""The records of τ²'s databases that a call can have touched, as plain data, and where two states of them differ.

Of a large database only the records are looked at whose id stands in a write's arguments or result, and those that these
records name (an order's user).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from tau2_slime.world.environment import World

Records = dict[str, Any]
"""``table.id`` -> the record as plain data."""
Difference = tuple[str, str, str, str]
"""(path, before, here, gold); values are JSON."""

_ID = re.compile(r"#?[A-Za-z0-9_]{3,}")
LARGE = 40
"""A table with more records than this is not looked through."""


def ids_in(value: object) -> set[str]:
    """Every word in ``value`` that can be an id."""
    if isinstance(value, str):
        return {value, *_ID.findall(value[:100_000])}
    if isinstance(value, Mapping):
        return set().union(*map(ids_in, value.values())) if value else set()
    if isinstance(value, (list, tuple)):
        return set().union(*map(ids_in, value)) if value else set()
    return set()


def tables_of(world: World) -> dict[str, dict[str, Any]]:
    """The agent's tables by name, each id -> record as τ² holds it; to be read only."""
    return _tables(world)[0]


def _tables(world: World) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The agent's tables by name, each id -> record; and the user's database, where it has one of its own."""
    agent = getattr(world.environment.tools, "db", None)
    user = getattr(world.environment.user_tools, "db", None)
    tables: dict[str, dict[str, Any]] = {}
    for name, table in dict(agent).items() if isinstance(agent, BaseModel) else ():
        if isinstance(table, dict):
            tables[name] = table
        elif isinstance(table, list):
            tables[name] = {_own_id(record, position): record for position, record in enumerate(table)}
    plain = user.model_dump(mode="json") if isinstance(user, BaseModel) and user is not agent else {}
    return tables, plain


def _own_id(record: object, position: int) -> str:
    """What a record of a list calls itself: its first field that ends in ``_id``."""
    fields = dict(record) if isinstance(record, BaseModel) else {}
    return next((str(value) for name, value in fields.items() if name.endswith("_id")), str(position))


def find(world: World, table: str, key: object) -> Any:
    """A record as τ² holds it, to be read only; None if there is none."""
    held = _tables(world)[0].get(table, {})
    # Not `held[key]`: a table that episodes share copies a record for whoever asks it for one.
    return dict.get(held, key) if isinstance(key, str) else None


def records(world: World, names: set[str] | frozenset[str]) -> Records:
    """The records that ``names`` name, those that these name in turn, all of small tables, and the user's database."""
    tables, user = _tables(world)
    found: Records = {f"user.{key}": value for key, value in user.items()}
    wanted = set(names)
    for hop in range(2):
        more: set[str] = set()
        for name, table in tables.items():
            keys = list(table) if len(table) <= LARGE else [one for one in wanted if one in table]
            for key in keys:
                path = f"{name}.{key}"
                if path in found:
                    continue
                record = dict.__getitem__(table, key)
                found[path] = to_jsonable_python(record, fallback=str)
                if hop == 0 and isinstance(found[path], dict):
                    more |= {v for k, v in found[path].items() if k.endswith("_id") and isinstance(v, str)}
        wanted = more
    return found


def record_of(path: str) -> str:
    table, _, rest = path.partition(".")
    return f"{table}.{rest.partition('.')[0]}"


def differences(before: Records, here: Records, gold: Records) -> Iterator[Difference]:
    for key in sorted(before.keys() | here.keys() | gold.keys()):
        values = (before.get(key), here.get(key), gold.get(key))
        if values[1] != values[2]:
            yield from _fields(key, values)


def _fields(path: str, values: tuple[Any, Any, Any]) -> Iterator[Difference]:
    before, here, gold = values
    if isinstance(here, dict) and isinstance(gold, dict):
        first = before if isinstance(before, dict) else {}
        for key in sorted(here.keys() | gold.keys(), key=str):
            if here.get(key) != gold.get(key):
                yield from _fields(f"{path}.{key}", (first.get(key), here.get(key), gold.get(key)))
        return
    yield path, _json(before), _json(here), _json(gold)


def _json(value: object) -> str:
    return "(absent)" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


_GENERATED = re.compile(r"\b(HATHA[TUV]|(?:certificate|gift_card)_322132[0-9]|\d{7}_refund|[A-Z]\d{4}_refuel)\b")


def normal(state: Records) -> list[str]:
    """Lists sorted and generated ids renamed: equal for worlds that differ in nothing that means anything."""
    return sorted(
        _GENERATED.sub("(new)", f"{key} {json.dumps(_sorted(value), sort_keys=True)}") for key, value in state.items()
    )


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        held: dict[str, list[object]] = {_GENERATED.sub("(new)", str(key)): [] for key in value}
        for key, item in value.items():
            held[_GENERATED.sub("(new)", str(key))].append(_sorted(item))
        return {key: sorted(items, key=_canonical) for key, items in held.items()}
    if isinstance(value, list):
        return sorted((_sorted(item) for item in value), key=_canonical)
    return _GENERATED.sub("(new)", value) if isinstance(value, str) else value


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def known_before(world: World) -> frozenset[str]:
    """Records of the domain's shared database, which no call of an episode has made."""
    key = world.kind
    if key not in _shared:
        tables, _ = _tables(world)
        made = {"HATHAT", "HATHAU", "HATHAV"}
        _shared[key] = frozenset(f"{name}.{one}" for name, table in tables.items() for one in table if one not in made)
    return _shared[key]


_shared: dict[str, frozenset[str]] = {}
