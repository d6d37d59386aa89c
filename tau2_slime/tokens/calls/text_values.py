"""Conversions that lose nothing: of what stands in a text, and of a scalar to the type that a schema names."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Final, TypeGuard

from tau2_slime.tokens.calls.json_text import MAX_DEPTH, BadJson, nesting_depth, read_json
from tau2_slime.tokens.calls.types import Json, JsonObject

NULL_TEXTS = frozenset({"null", "None"})
"""JSON's null, and the None of templates that print Python values."""

MAX_PYTHON_LITERAL = 20_000
"""Longest text, in characters, that is given to Python's own reader."""


class NoMatch(Enum):
    """The type of `NO_MATCH`."""

    NO_MATCH = "a value does not fit"


NO_MATCH: Final = NoMatch.NO_MATCH


def number_in(text: str) -> int | float | None:
    """The number that `text` is in JSON's grammar, white space around it allowed; None if it is not a number."""
    try:
        value = read_json(text)
    except BadJson:
        return None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def exact_integer(value: Json) -> int | None:
    """The integer that `value` equals, 3.0 and 1e2 included; None if it equals none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else None


def list_in(value: Json) -> list[Json] | None:
    """The list that the text `value` holds; None if it holds none, or is not a text.

    Python's notation ('single quotes', True, None) is read where JSON fails, for templates that print Python values.

    >>> list_in("['a', True, None]")
    ['a', True, None]
    """
    found = _container_in(value, "[")
    return found if isinstance(found, list) else None


def object_in(value: Json) -> JsonObject | None:
    """As `list_in`, for an object.

    >>> object_in('{"bags": 2}')
    {'bags': 2}
    """
    found = _container_in(value, "{")
    return found if isinstance(found, dict) else None


def _container_in(value: Json, opening: str) -> Json:
    if not isinstance(value, str) or not value.lstrip().startswith(opening):
        return None
    try:
        return read_json(value)
    except BadJson:
        return _python_literal(value.strip())


def _python_literal(text: str) -> Json:
    """The list or dict of JSON values that `text` is as a Python literal, else None."""
    if len(text) > MAX_PYTHON_LITERAL or _brackets(text) > MAX_DEPTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the model's text
            found: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, SystemError):
        return None  # MemoryError and SystemError: how Python's compiler gives up on hostile nesting
    return found if _is_json(found) and nesting_depth(found) <= MAX_DEPTH else None


def _brackets(text: str) -> int:
    """An upper bound of how deep brackets nest in `text`."""
    deepest = level = 0
    for character in text:
        if character in "[{(":
            level += 1
            deepest = max(deepest, level)
        elif character in "]})":
            level = max(0, level - 1)
    return deepest


def _is_json(value: object) -> TypeGuard[Json]:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))


# --- scalars: (value, exact) -> the value as that type, or NO_MATCH; exact: nothing may be converted


def as_string(value: Json, exact: bool) -> str | NoMatch:
    if isinstance(value, str):
        return str(value)
    if exact or isinstance(value, bool):
        return NO_MATCH
    return str(value) if isinstance(value, int) else NO_MATCH  # a bare float does not say whether it was 1.5 or 1.50


def _as_integer(value: Json, exact: bool) -> int | NoMatch:
    number = number_in(value) if isinstance(value, str) and not exact else value
    return NO_MATCH if (integer := exact_integer(number)) is None else integer


def _as_number(value: Json, exact: bool) -> Json | NoMatch:
    number = number_in(value) if isinstance(value, str) and not exact else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return NO_MATCH
    if isinstance(number, float) and not math.isfinite(number):
        return NO_MATCH
    return number


def _as_boolean(value: Json, exact: bool) -> bool | NoMatch:
    if isinstance(value, bool):
        return value
    if exact or not isinstance(value, str):
        return NO_MATCH
    return {"true": True, "True": True, "false": False, "False": False}.get(value.strip(), NO_MATCH)


def _as_null(value: Json, exact: bool) -> NoMatch | None:
    is_null = value is None or (not exact and isinstance(value, str) and value.strip() in NULL_TEXTS)
    return None if is_null else NO_MATCH


SCALARS: Final[dict[str, Callable[[Json, bool], Json | NoMatch]]] = {
    "string": as_string,
    "integer": _as_integer,
    "number": _as_number,
    "boolean": _as_boolean,
    "null": _as_null,
}
