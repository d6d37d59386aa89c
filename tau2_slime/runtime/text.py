"""Text that came in through JSON escapes, made fit for UTF-8.

`"\\ud800"` is valid JSON but not valid text: τ² hashes it, an HTTP client and a trajectory file refuse it. It is mended
once, where it comes in.
"""

from __future__ import annotations

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
    return cast("T", _well_formed(value))


def _well_formed(value: object) -> object:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    return value
