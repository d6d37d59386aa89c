"""Secrets by name: settings are uploaded and logged, so they hold the names of environment variables, never a key.

The checks raise a ValueError for what looks like a key, and its message does not repeat the key. `VariableName`,
`KeylessUrl` and `KeylessArguments` are these checks as types of a model's fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

_NAMES_A_SECRET = re.compile(
    r"api[-_]?key|authorization|password|secret|(auth|access|session|ad)[-_]token|^cookie$", re.IGNORECASE
)


def variable_name(value: str | None) -> str | None:
    """``value``, if it can be the name of an environment variable.

    Raises:
        ValueError: it looks like the key itself.
    """
    if value is not None and _looks_like_a_key(value):
        raise ValueError("give the NAME of an environment variable, such as OPENAI_API_KEY, never the key itself")
    return value


def keyless_url(value: str | None, setting: str) -> str | None:
    """``value``, the URL of an endpoint, if neither a key nor a password is part of it.

    Args:
        value: for example ``https://host/v1?api-version=1``.
        setting: the setting that names the key's variable, for the message.

    Raises:
        ValueError: a key or a password is part of it.
    """
    parts = urlsplit(value or "")
    asked = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    named = [name for name in asked if name == "key" or _NAMES_A_SECRET.search(name)]
    if "@" in parts.netloc or named:
        what = named[0] if named else "a user or password"
        raise ValueError(f"{what} does not belong in a URL: name the variable that holds the key with {setting}")
    return value


def keyless_arguments(value: dict[str, Any] | None, setting: str) -> dict[str, Any] | None:
    """``value``, further arguments of a model, if none of them has the name of a key, at any depth.

    Args:
        value: for example ``{"temperature": 0.0, "extra_headers": {"X-Title": "run 7"}}``.
        setting: the setting that names the key's variable, for the message.

    Raises:
        ValueError: an argument is named as keys are.
    """
    for name in _names(value):
        if _NAMES_A_SECRET.search(name):
            raise ValueError(f"{name} does not belong here: name the variable that holds it with {setting}")
    return value


def _names(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [*map(str, value), *(name for item in value.values() for name in _names(item))]
    return [name for item in value for name in _names(item)] if isinstance(value, list | tuple) else []


def _looks_like_a_key(value: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) or value.startswith(("gsk_", "hf_", "AIza")):
        return True
    return len(value) >= 20 and "_" not in value


# ---- as types of fields --------------------------------------------------------------------------------------------------


def _setting_beside(info: ValidationInfo) -> str:
    """The setting that names the key for the field that is looked at: user_api_key_var for user_base_url."""
    return "user_api_key_var" if (info.field_name or "").startswith("user_") else "api_key_var"


def _none_if_empty(value: object) -> object:
    return value or None


VariableName = Annotated[str | None, BeforeValidator(_none_if_empty), AfterValidator(variable_name)]
"""The name of an environment variable; an empty text is unset."""
KeylessUrl = Annotated[
    str | None,
    BeforeValidator(_none_if_empty),
    AfterValidator(lambda value, info: keyless_url(value, _setting_beside(info))),
]
"""An endpoint's URL without a key in it; an empty text is unset."""
KeylessArguments = Annotated[
    dict[str, Any], AfterValidator(lambda value, info: keyless_arguments(value, _setting_beside(info)))
]
"""litellm arguments without a key among them."""
