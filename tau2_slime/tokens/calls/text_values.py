"""Values that a text spells: numbers, and lists and objects in JSON or in Python's own notation."""

from __future__ import annotations

import ast
import math
import warnings
from decimal import Decimal
from typing import Any

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

NULL_SPELLINGS = frozenset({"null", "None"})
"""JSON's, and the one that templates write which print Python values."""

MAX_PYTHON_LITERAL = 20_000
"""Longest text, in characters, that is given to Python's own reader."""


def number_in(text: str) -> LiteralInt | LiteralFloat | None:
    """The number that `text` spells in JSON's grammar, white space around it allowed; None if it is no such text."""
    text = text.strip()
    if not JSON_NUMBER.fullmatch(text):
        return None
    try:
        return read_float(text) if any(mark in text for mark in ".eE") else read_int(text)
    except BadJson:
        return None


def exact_integer(value: Any) -> int | None:
    """The integer that `value` is, 3.0 and 1e2 included; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        return None
    exact = Decimal(value.literal) if isinstance(value, LiteralFloat) else Decimal(value)
    return int(exact) if exact == exact.to_integral_value() else None


def container_in(value: Any, kind: type) -> Any:
    """The list or object (`kind`) that the text `value` spells, None if it is no such text.

    Python's notation ('single quotes', True, None) is read where JSON fails, for templates that print Python values.
    """
    opening = "[" if kind is list else "{"
    if not isinstance(value, str) or not value.lstrip().startswith(opening):
        return None
    try:
        found = read_json(value)
    except BadJson:
        found = _python_literal(value.strip())
    return found if isinstance(found, kind) else None


def _python_literal(text: str) -> Any:
    """The list or dict of JSON-like values that a Python literal spells, else None."""
    if len(text) > MAX_PYTHON_LITERAL or _brackets(text) > MAX_DEPTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the model's text
            found = ast.literal_eval(text)
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


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
