"""Secrets by name: a setting holds the name of an environment variable, never a key. Settings are uploaded, logged, kept.

What looks like a key is refused by a ValueError, which does not repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_NAMES_A_SECRET = re.compile(
    r"api[-_]?key|authorization|password|secret|(auth|access|session|ad)[-_]token|^cookie$", re.IGNORECASE
)


def name_of_a_variable(value: str | None) -> str | None:
    """``value``, if it can be the name of an environment variable.

    Raises:
        ValueError: it looks like the key itself.
    """
    if value is not None and _looks_like_a_key(value):
        raise ValueError("give the NAME of an environment variable, such as OPENAI_API_KEY, never the key itself")
    return value


def address(value: str | None, variable: str) -> str | None:
    """``value``, an endpoint's URL, if no key or password is part of it. ``variable``: the setting that names the key.

    Raises:
        ValueError: one is.
    """
    parts = urlsplit(value or "")
    asked = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    named = [name for name in asked if name == "key" or _NAMES_A_SECRET.search(name)]
    if "@" in parts.netloc or named:
        what = named[0] if named else "a user or password"
        raise ValueError(
            f"{what} does not belong into an address: name the variable that holds the key with {variable}"
        )
    return value


def arguments(value: dict[str, Any], variable: str) -> dict[str, Any]:
    """``value``, a model's further arguments, if none of them, at any depth, is called as keys are.

    Raises:
        ValueError: one is.
    """
    for name in _names(value):
        if _NAMES_A_SECRET.search(name):
            raise ValueError(f"{name} does not belong here: name the variable that holds it with {variable}")
    return value


def _names(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [*map(str, value), *(name for item in value.values() for name in _names(item))]
    return [name for item in value for name in _names(item)] if isinstance(value, list | tuple) else []


def _looks_like_a_key(value: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) or value.startswith(("gsk_", "hf_", "AIza")):
        return True
    return len(value) >= 20 and "_" not in value
