"""Values from outside: read as they were meant, and shown so that nothing in them can steer a terminal or a page.

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


_STEERING = re.compile(
    # Control characters with ESC, CR and C1; marks and overrides of the writing direction; invisible letters; surrogates.
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: object, *, lines: bool = False) -> str:
    """What others wrote (models, endpoints, files, names) as it may be printed: what steers a terminal is written out.

    >>> print(shown("a" + chr(27) + "[2J" + chr(0x202E) + chr(10)))
    a\\x1b[2J\\u202e\\n

    Args:
        text: a text, or anything with one.
        lines: leave line breaks and tabs; without, the result is one line, so that it cannot look like several.
    """
    return _STEERING.sub(
        lambda found: found[0] if lines and found[0] in "\n\t" else found[0].encode("unicode_escape").decode(),
        str(text),
    )


_MARKDOWN = re.compile(r"[\\|`&<>]|(?<=\])\(")


def markdown(text: object) -> str:
    """``text`` for one line or cell of a Markdown page: no HTML, no link or image, no end of a cell, as a reader sees it.

    >>> print(markdown("a|b <img src=x> [c](d)"))
    a\\|b &lt;img src=x&gt; [c]\\(d)
    """
    html = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    return _MARKDOWN.sub(lambda found: html.get(found[0], f"\\{found[0]}"), shown(text))


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
