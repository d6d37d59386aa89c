"""Secrets by name: settings are uploaded and logged, so they hold the names of environment variables, never a key.

A key is recognised by its kind, wherever it stands: by what the argument, header or query parameter that holds it is called,
and by what the value looks like. The checks raise a ValueError whose message does not repeat the key. `VariableName`,
`KeylessUrl`, `KeylessArguments` and `KeylessText` are these checks as types of a model's fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

_SECRET_WORDS = re.compile(
    r"key|apikey|token|secret|passw(or)?d|passphrase|pwd|auth|authori[sz]ation|authentication|bearer|credentials?|cookie"
    r"|signature|sig|jwt|sas|pat|code",
    re.IGNORECASE,
)
"""The last word of a name that holds a secret: X-Token, hf_token, Ocp-Apim-Subscription-Key, privateKey."""
_SECRET_ANYWHERE = re.compile(
    r"api[-_]?key|access[-_]?key|private[-_]?key|secret|passw|credential|authorization", re.IGNORECASE
)
_HARMLESS = frozenset(
    [
        *("eos_token", "bos_token", "pad_token", "unk_token", "stop_token", "image_token", "prompt_cache_key"),
        *("language_code", "country_code", "region_code"),
    ]
)
"""Names that end as those of secrets do, and hold none."""
_LOOKS_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|rk)-|(?:xai|csk|tgp)[-_])[A-Za-z0-9_-]{16,}"
    r"|(?<![A-Za-z0-9])(?:gsk_|hf_|nvapi-|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-)[A-Za-z0-9_-]{8,}"
    r"|(?<![A-Za-z0-9])(?:AIza|ya29\.)[A-Za-z0-9_-]{16,}|(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}|-----BEGIN "
    r"|\b(?:bearer|basic)\s+\S{6,}",
    re.IGNORECASE,
)
"""How the keys of known providers begin, JSON web tokens, PEM blocks, and the values of Authorization headers."""
_RANDOM = re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{24,}(?![A-Za-z0-9])")
"""Letters and digits mixed, far longer than a word: a key of a provider that nobody here knows."""


def holds_a_secret(value: object) -> bool:
    """True if something in a setting's value looks like a key, or is called as one: then no message may show it."""
    return any(_is_secret_name(name) or _looks_secret(text) or _RANDOM.search(text) for name, text in _texts(value))


def looks_like_a_key(value: object) -> bool:
    """True if a text in a setting's value, at any depth, begins as the keys of known providers do."""
    return any(_looks_secret(text) for _, text in _texts(value))


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
    if value is None:
        return None
    scheme, marked, rest = value.partition("://")
    parts = urlsplit(value if marked else f"//{value}")
    cure = f"name the variable that holds the key with {setting}"
    if "@" in (rest if marked else scheme).partition("/")[0] or "@" in parts.netloc:
        raise ValueError(f"a user or password does not belong in a URL: {cure}")
    if parts.fragment:
        raise ValueError(f"a part after # does not belong in a URL of an endpoint; if it is a key: {cure}")
    for name, given in parse_qsl(parts.query, keep_blank_values=True):
        if name.lower() == "key" or _is_secret_name(name):
            raise ValueError(f"{_shown(name)} does not belong in a URL: {cure}")
        if _looks_secret(given) or _RANDOM.search(given):
            raise ValueError(f"what {_shown(name)} holds looks like a key, which does not belong in a URL: {cure}")
    if _looks_secret(unquote(parts.path)):
        raise ValueError(f"a part of the path looks like a key, which does not belong in a URL: {cure}")
    return value


def keyless_arguments(value: dict[str, Any] | None, setting: str) -> dict[str, Any] | None:
    """``value``, further arguments of a model, if none of them is called as a key is or looks like one, at any depth.

    Args:
        value: for example ``{"temperature": 0.0, "extra_headers": {"X-Title": "run 7"}}``.
        setting: the setting that names the key's variable, for the message.

    Raises:
        ValueError: an argument is called as keys are, or its value looks like one.
    """
    for name, given in _texts(value):
        if _is_secret_name(name):
            raise ValueError(f"{_shown(name)} does not belong here: name the variable that holds it with {setting}")
        if _looks_secret(given) or (" " not in given and _RANDOM.search(given)):
            raise ValueError(
                f"what {_shown(name)} holds looks like a key, which does not belong here: name the variable that holds it "
                f"with {setting}"
            )
    return value


def keyless_text(value: str, setting: str) -> str:
    """``value``, such as a model's name, if nothing in it looks like a key. Raises ValueError."""
    asked = parse_qsl(value.partition("?")[2], keep_blank_values=True)
    if _looks_secret(value) or any(_is_secret_name(name) for name, _ in asked):
        raise ValueError(f"a part of it looks like a key: name the variable that holds the key with {setting}")
    return value


def _texts(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """(name of the argument, text) for every text in ``value``; what is inside a secret is called as the secret is."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, name if _is_secret_name(name) else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, name)
    elif isinstance(value, str):
        yield name, value


def _is_secret_name(name: str) -> bool:
    """True if what is called so holds a key: the last of its words says it, or a pair of words that says nothing else."""
    if name.lower() in _HARMLESS:
        return False
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)
    return bool(words and _SECRET_WORDS.fullmatch(words[-1])) or _SECRET_ANYWHERE.search(name) is not None


def _shown(name: str) -> str:
    return "it" if not name or _looks_secret(name) or len(name) > 60 else name


def _looks_secret(text: str) -> bool:
    return _LOOKS_SECRET.search(text) is not None


def _looks_like_a_key(value: str) -> bool:
    if not re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) or value.startswith(("gsk_", "hf_", "AIza")):
        return True
    return len(value) >= 20 and "_" not in value


# ---- as types of fields --------------------------------------------------------------------------------------------------


def _setting_beside(info: ValidationInfo) -> str:
    """The setting that names the key for the field that is looked at: user_api_key_var for user_base_url."""
    role = next((role for role in ("user", "judge") if (info.field_name or "").startswith(f"{role}_")), "")
    return f"{role}_api_key_var" if role else "api_key_var"


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
KeylessText = Annotated[str, AfterValidator(lambda value, info: keyless_text(value, _setting_beside(info)))]
"""The name of a model without a key in it."""
