"""Values that stand in a text: numbers, and lists and objects in JSON or in Python's own notation."""

from __future__ import annotations

import ast
import math
import warnings
from decimal import Decimal
from typing import TypeGuard

from tau2_slime.tokens.calls.literal_json import (
    JSON_NUMBER,
    MAX_DEPTH,
    BadJson,
    LiteralFloat,
    LiteralInt,
    nesting_depth,
    read_float,
    read_int,
    read_json,
)
from tau2_slime.tokens.calls.types import Json, JsonObject

NULL_TEXTS = frozenset({"null", "None"})
"""JSON's null, and the None of templates that print Python values."""

MAX_PYTHON_LITERAL = 20_000
"""Longest text, in characters, that is given to Python's own reader."""


def number_in(text: str) -> LiteralInt | LiteralFloat | None:
    """The number that `text` is in JSON's grammar, white space around it allowed; None if it is not a number."""
    text = text.strip()
    if not JSON_NUMBER.fullmatch(text):
        return None
    try:
        return read_float(text) if any(mark in text for mark in ".eE") else read_int(text)
    except BadJson:
        return None


def exact_integer(value: Json) -> int | None:
    """The integer that `value` equals, 3.0 and 1e2 included; None if it equals none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        return None
    exact = Decimal(value.literal) if isinstance(value, LiteralFloat) else Decimal(value)
    return int(exact) if exact == exact.to_integral_value() else None


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
