"""Keys taken out of text by their value, wherever the text came from.

An endpoint may repeat the key that it was sent, whole or cut, in an error that ends up in records, samples and logs. So
every text from outside passes `redact` before it is cut, kept or shown.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import re
from functools import lru_cache
from urllib.parse import quote

MASK = "***"
_NAMES_A_SECRET = re.compile(r"(?:^|_)(?:\w*KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_LEAST = 5
"""Characters of the shortest key that is taken out; shorter ones, such as ``none``, are placeholders and words."""
_LEAST_UNSEEN = 12
"""Characters of the shortest key that is taken out where words of a conversation stand, and for a variable nobody named."""
_HEAD = 8
"""Leading characters by which a key that somebody cut is recognised."""

_remembered: set[str] = set()


def remember(key: str) -> None:
    """``key`` was read from a variable that the settings name: it is taken out from now on."""
    if len(key) >= _LEAST:
        _remembered.add(key)


def redact(text: str) -> str:
    """``text`` without any known key, nor the beginning of one, nor its usual encodings.

    Known are the keys that were `remember`-ed, and the values of environment variables whose names end as those of keys do.
    """
    for key in _known():
        for spelled in _spellings(key):
            if spelled in text:
                text = text.replace(spelled, MASK)
        if len(key) >= 2 * _HEAD:
            text = _without_beginnings(text, key)
    return text


def described(error: BaseException) -> str:
    """An exception that nobody foresaw, in one text without any known key."""
    return redact(f"{type(error).__name__}: {error}")


def redact_words(text: str) -> str:
    """`redact` for what a model says: only whole keys, and none that could be a word."""
    for key in _known():
        if len(key) >= _LEAST_UNSEEN:
            for spelled in _spellings(key):
                if spelled in text:
                    text = text.replace(spelled, MASK)
    return text


_seen: tuple[object, set[str], list[str]] | None = None
"""The environment and `_remembered` as they were last read, and what was known then."""


def _known() -> list[str]:
    """The longest first, so that no key is cut by one that is its beginning."""
    global _seen
    environment: object = getattr(os.environ, "_data", None)  # its values decoded are most of what an answer costs here
    if _seen is not None and environment is not None and _seen[:2] == (environment, _remembered):
        return _seen[2]
    found = set(_remembered)
    for name, value in os.environ.items():
        if len(value) >= _LEAST_UNSEEN and _names_a_secret(name):
            found.add(value.strip())
    known = sorted(found, key=len, reverse=True)
    _seen = copy.copy(environment), set(_remembered), known
    return known


@lru_cache(maxsize=512)
def _names_a_secret(name: str) -> bool:
    return _NAMES_A_SECRET.search(name) is not None


@lru_cache(maxsize=64)
def _spellings(key: str) -> tuple[str, ...]:
    encoded = base64.b64encode(key.encode("utf-8", "surrogateescape")).decode().rstrip("=")
    escaped = json.dumps(key)[1:-1]
    return tuple(dict.fromkeys([key, escaped, escaped.replace("/", "\\/"), quote(key, safe=""), encoded]))


def _without_beginnings(text: str, key: str) -> str:
    at = text.find(key[:_HEAD])
    while at >= 0:
        end = at + _HEAD
        while end < len(text) and end - at < len(key) and text[end] == key[end - at]:
            end += 1
        text = text[:at] + MASK + text[end:]
        at = text.find(key[:_HEAD], at + len(MASK))
    return text
