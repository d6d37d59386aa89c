"""JSON as the model spelled it.

A number remembers its literal, so that `1.50` in an argument whose schema says string becomes "1.50" and not "1.5";
text taken from an XML-like call is marked as raw, because only the schema can say what it is. `plain` turns all of it
back into ordinary values.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 64
"""Deepest nesting that is read: hostile nesting must not reach code that recurses over arguments."""

JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class SpelledInt(int):
    """An integer of a JSON text; `literal` is its spelling."""

    literal: str


class SpelledFloat(float):
    """A number with a fraction or an exponent of a JSON text; `literal` is its spelling."""

    literal: str


class RawText(str):
    """The text of an argument in a format that does not say types."""

    __slots__ = ()


class BadJson(ValueError):
    """Not JSON. The message says what is wrong and where, without a final full stop."""


def read_int(literal: str) -> SpelledInt:
    """Raises BadJson for more digits than Python converts."""
    try:
        number = SpelledInt(literal)
    except ValueError:
        raise BadJson(f"a number of {len(literal)} digits is too long") from None
    number.literal = literal
    return number


def read_float(literal: str) -> SpelledFloat:
    """Raises BadJson for a number that no float holds."""
    number = SpelledFloat(literal)
    if math.isinf(number):
        raise BadJson(f"the number {literal[:40]} is out of range")
    number.literal = literal
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise BadJson(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_int=read_int, parse_float=read_float, parse_constant=_refuse_constant)


def decode_at(text: str, start: int) -> tuple[Any, int]:
    """(value, end) of the JSON value that begins exactly at text[start]; what follows `end` is not looked at.

    The last of duplicate keys wins; lone surrogates pass. Raises BadJson; positions count from `start`.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line = text.count("\n", start, error.pos) + 1
        column = error.pos - max(start - 1, text.rfind("\n", start, error.pos))
        raise BadJson(
            f"{error.msg.removesuffix(' at')} at line {line} column {column} (character {error.pos - start})"
        ) from None
    except RecursionError:
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels") from None
    if depth(value) > MAX_DEPTH:
        raise BadJson(f"it is nested deeper than {MAX_DEPTH} levels")
    return value, end


def decode(text: str) -> Any:
    """The value of a text that is one JSON value, white space around it allowed. Raises BadJson."""
    text = text.strip()
    value, end = decode_at(text, 0)
    if end != len(text):
        raise BadJson(f"Extra data after the JSON value (character {end})")
    return value


def depth(value: Any) -> int:
    """How deep lists and objects nest: 0 for a scalar, 1 for []. Does not recurse."""
    deepest = 0
    todo: list[tuple[Any, int]] = [(value, 0)]
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


def plain(value: Any) -> Any:
    """`value` with ordinary int, float and str in place of the marked ones; new lists and dicts."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    for marked, ordinary in ((SpelledInt, int), (SpelledFloat, float), (RawText, str)):
        if isinstance(value, marked):
            return ordinary(value)
    return value
