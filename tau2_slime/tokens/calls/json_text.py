"""JSON that a model wrote: read with bounds, and with errors that tell the model where it went wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import NoReturn

from tau2_slime.tokens.calls.types import Json

MAX_DEPTH = 64
"""Deepest nesting that is read: hostile nesting must not reach code that recurses over arguments."""


class UntypedText(str):
    """The text of an argument in a format that does not say types."""

    __slots__ = ()


class BadJson(ValueError):
    """Not JSON. The message says what is wrong and where, without a final full stop."""


def _read_int(literal: str) -> int:
    try:
        return int(literal)
    except ValueError:  # Python converts no more than some thousand digits
        raise BadJson(f"a number of {len(literal)} digits is too long") from None


def _read_float(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise BadJson(f"the number {literal[:40]} is out of range")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not a JSON value")


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise BadJson(f"{json.dumps(twice)[:60]} is there twice")
    return found


_DECODER = json.JSONDecoder(parse_int=_read_int, parse_float=_read_float, parse_constant=_refuse_constant)
_STRICT = json.JSONDecoder(
    parse_int=_read_int,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
    object_pairs_hook=_without_duplicates,
)


def read_json_at(text: str, start: int, *, strict: bool = False) -> tuple[Json, int]:
    """(value, end) of the JSON value that begins exactly at text[start]; what follows `end` is not looked at.

    The last of duplicate keys wins, or they are refused if ``strict``; lone surrogates pass. Raises BadJson; positions
    count from `start`.
    """
    try:
        value, end = (_STRICT if strict else _DECODER).raw_decode(text, start)
    except json.JSONDecodeError as error:
        line = text.count("\n", start, error.pos) + 1
        column = error.pos - max(start - 1, text.rfind("\n", start, error.pos))
        raise BadJson(
            f"{error.msg.removesuffix(' at')} at line {line} column {column} (character {error.pos - start})"
        ) from None
    except RecursionError:
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels") from None
    if end - start > 2 * MAX_DEPTH and nesting_depth(value) > MAX_DEPTH:  # a level takes two characters
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels")
    return value, end


def read_json(text: str, *, strict: bool = False) -> Json:
    """The value of a text that is one JSON value, white space around it allowed. ``strict``: see `read_json_at`.

    Raises BadJson.
    """
    text = text.strip()
    value, end = read_json_at(text, 0, strict=strict)
    if end != len(text):
        raise BadJson(f"Extra data after the JSON value (character {end})")
    return value


def nesting_depth(value: Json) -> int:
    """How deep lists and objects nest: 0 for a scalar, 1 for []. Does not recurse."""
    deepest = 0
    todo: list[tuple[Json, int]] = [(value, 0)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, dict):
            level, children = level + 1, list(item.values())
        elif isinstance(item, list):
            level, children = level + 1, item
        else:
            continue
        deepest = max(deepest, level)
        todo.extend((child, level) for child in children)
    return deepest
