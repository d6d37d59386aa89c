"""Values from outside, read as they were meant: text that came through JSON escapes, positions that came as text or floats.

`"\\ud800"` is valid JSON but not valid text: τ² hashes it, an HTTP client and a trajectory file refuse it. It is mended
once, where it comes in.
"""

from __future__ import annotations

import numbers
import re
from typing import TypeVar, cast

T = TypeVar("T")


def well_formed(text: str) -> str:
    """``text`` with the replacement character in place of each lone surrogate; pairs become the character they mean.

    >>> well_formed("a\\ud800b"), well_formed("\\ud83d\\ude00")
    ('a\ufffdb', '😀')
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def well_formed_value(value: T) -> T:
    """A JSON value of the same shape, with every string in it `well_formed`, keys included."""
    mended: object = value
    if isinstance(value, str):
        mended = well_formed(value)
    elif isinstance(value, dict):
        mended = {well_formed_value(key): well_formed_value(item) for key, item in value.items()}
    elif isinstance(value, list):
        mended = [well_formed_value(item) for item in value]
    return cast("T", mended)


def first_position(*candidates: object) -> int | None:
    """The first of ``candidates`` that is a position: an int, a text of digits, or a whole float.

    pandas writes a column of ints with a gap as floats.

    >>> first_position(None, "7"), first_position(3.0), first_position(True, "seven", 0.5)
    (7, 3, None)
    """
    for value in candidates:
        if isinstance(value, bool):
            continue
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,18}\s*", value):
            return int(value)
        if isinstance(value, numbers.Integral):
            return int(value)
        if isinstance(value, numbers.Real) and float(value).is_integer():
            return int(float(value))
    return None
