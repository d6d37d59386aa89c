"""τ²'s large files in pieces: no single step of reading one keeps the interpreter, and so the event loop, for long.

Python's JSON reader and pydantic hold the interpreter's lock from the first byte of a file to the last, for up to 0.3 s.
Here each record is read by itself, by the same readers, and other threads have their turn in between.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import IO, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_DEPTH = 2
"""Levels of a file that are taken apart: tables, and their records."""
_SMALL = 2**18
"""Characters of a file that is read at once."""
_SPACE = re.compile(r"[ \t\n\r]*")
_read_one = json.JSONDecoder().raw_decode
_patching = threading.RLock()
_stock: tuple[Any, Any] | None = None
"""While something reads in pieces: τ²'s own ``json`` and ``DB.load``."""


def _in_a_forked_child() -> None:
    """The thread that was reading does not exist here: nobody gives its lock back, or τ² its own loaders."""
    global _patching, _stock
    _patching = threading.RLock()
    if _stock is not None:
        importlib.import_module("tau2.utils.io_utils").json, loader = _stock  # type: ignore[attr-defined]
        importlib.import_module("tau2.environment.db").DB.load = loader
        _stock = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


@contextmanager
def in_pieces() -> Iterator[None]:
    """τ²'s own loaders read in pieces while the context lasts, in every thread. What they return stays the same."""
    files: Any = importlib.import_module("tau2.utils.io_utils")
    database: Any = importlib.import_module("tau2.environment.db").DB
    global _stock
    with _patching:
        before, load, outer = files.json, database.__dict__["load"], _stock
        _stock = outer or (before, load)
        files.json = SimpleNamespace(**{**vars(before), "load": _load_json})
        database.load = classmethod(_load_database)
        try:
            yield
        finally:
            files.json, database.load, _stock = before, load, outer


def _load_json(file: IO[str], **options: Any) -> object:
    text = file.read()
    return json.loads(text, **options) if options else read_in_pieces(text)


def read_in_pieces(text: str) -> object:
    """What `json.loads` returns. Raises ValueError as it does."""
    if len(text) > _SMALL:
        try:
            value, end = _value(text, _after_space(text, 0), _DEPTH)
            if _after_space(text, end) == len(text):
                return value
        except (ValueError, IndexError):
            pass  # said below, in Python's own words
    return json.loads(text)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # the pattern matches the empty string
    return found.end()


def _value(text: str, at: int, depth: int) -> tuple[object, int]:
    """(the value that begins at ``at``, where it ends). Raises ValueError or IndexError for what is not JSON."""
    kind = text[at]
    if depth == 0 or kind not in "[{":
        return _read_one(text, at)
    items: list[object] = []
    pairs: dict[str, object] = {}
    end = "]" if kind == "[" else "}"
    at = _after_space(text, at + 1)
    if text[at] == end:
        return (items if kind == "[" else pairs), at + 1
    while True:
        if kind == "{":
            key, at = _read_one(text, at)
            at = _after_space(text, at)
            if not isinstance(key, str) or text[at] != ":":
                raise ValueError
            pairs[key], at = _value(text, _after_space(text, at + 1), depth - 1)
        else:
            item, at = _value(text, at, depth - 1)
            items.append(item)
        at = _after_space(text, at)
        if text[at] == end:
            return (items if kind == "[" else pairs), at + 1
        if text[at] != ",":
            raise ValueError
        at = _after_space(text, at + 1)


def _load_database(cls: Any, path: str) -> Any:
    """τ²'s `DB.load`, record by record."""
    data = importlib.import_module("tau2.environment.db").load_file(path)
    try:
        tables = {name: _records(record, data[name]) for name, record in _tables(cls, data).items()}
        return cls.model_validate({**data, **tables} if tables else data)
    except ValidationError:  # τ² says it of the whole database
        return cls.model_validate(data)


def _tables(cls: type[BaseModel], data: Any) -> dict[str, type[BaseModel]]:
    """The fields of a database that hold records by key, and the class of their records."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in cls.model_fields.items() if type(data) is dict else ():
        record = get_args(field.annotation)[1] if get_origin(field.annotation) is dict else None
        if isinstance(record, type) and issubclass(record, BaseModel) and type(data.get(name)) is dict:
            found[name] = record
    return found


def _records(record: type[BaseModel], table: dict[str, object]) -> dict[str, object]:
    return {key: record.model_validate(value) for key, value in table.items()}
