"""Where settings come from (the ``tau2:`` mapping, ``TAU2_*`` variables, metadata), and how each can be wrong.

`settings.Tau2Config.resolve` checks what is read and merged here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tau2_slime.config import secret_names
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import garbage_collection

Fields = Mapping[str, FieldInfo]
"""``Tau2Config.model_fields``: name of a setting -> its type and default."""

ALIASES = {"split": "task_split"}
"""Other names that a data row may use for a setting."""
REMOVED_KEYS = {
    "audit_rate": "the fast way to the reward is compared with τ²'s evaluator in the package's tests; delete the key"
}
"""Keys of earlier versions -> why they are gone and what to do."""
# Variables that τ² itself or this package's scripts read.
_FOREIGN_VARIABLES = {"TAU2_DATA_DIR", "TAU2_DATA_ROOT", "TAU2_LOG_LEVEL"}
# Of the process, not of an episode, so no keys: what each may be set to (`runtime.garbage_collection`).
_PROCESS_VARIABLES = {garbage_collection.VARIABLE: garbage_collection.SETTINGS}

_MAY_HOLD_SECRETS = {
    *(
        "judge_api_key_var",
        "judge_base_url",
        "judge_model",
        "user_api_key_var",
        "user_args",
        "user_base_url",
        "user_model",
        "user_model_rotation",
        "user_simulators",
    )
}


def check_keys(
    keys: Iterable[str],
    where: str,
    known: Iterable[str],
    *,
    also: Iterable[str] = (),
    not_here: Mapping[str, str] | None = None,
) -> None:
    """Nothing, if all ``keys`` are ``known`` settings or in ``also``.

    Args:
        keys: what the user wrote.
        where: where it stands, for the message.
        known: the names of the settings.
        also: further keys that are allowed there.
        not_here: settings that have no effect there -> why.

    Raises:
        ConfigError: naming a key that is unknown, or that is in ``not_here``.
    """
    refused = not_here or {}
    allowed = [*also, *(name for name in known if name not in refused)]
    for key in keys:
        if key in refused:
            raise ConfigError(f"{where}: {key!r} changes nothing here: {refused[key]}")
        if key not in allowed:
            raise _unknown(key, where, allowed)


def _unknown(key: str, where: str, allowed: Iterable[str]) -> ConfigError:
    if key in REMOVED_KEYS:
        return ConfigError(f"{where}: {key} was removed: {REMOVED_KEYS[key]}")
    known = list(allowed)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"{where}: unknown key {key!r}{hint} (allowed: {', '.join(known)})")


def from_yaml(mapping: Mapping[str, Any] | None, fields: Fields) -> dict[str, Any]:
    """The settings of the ``tau2:`` mapping, checked for unknown keys (ConfigError)."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"'tau2' of the custom config must be a mapping, not {type(mapping).__name__}")
    check_keys(map(str, mapping), "'tau2' of the custom config", fields)
    return dict(mapping)


def from_environ(environ: Mapping[str, str], fields: Fields) -> dict[str, tuple[str, Any]]:
    """Setting -> (variable, value) of the ``TAU2_*`` variables; a near miss of a setting is a ConfigError."""
    found: dict[str, tuple[str, Any]] = {}
    for name, value in environ.items():
        if not name.startswith("TAU2_") or name in _FOREIGN_VARIABLES or value == "":
            continue
        if name in _PROCESS_VARIABLES:
            if value not in _PROCESS_VARIABLES[name]:
                allowed = " or ".join(map(repr, _PROCESS_VARIABLES[name]))
                raise ConfigError(f"environment variable {name} = {value!r}: allowed is {allowed}")
            continue
        key = name.removeprefix("TAU2_").lower()
        if key not in fields:
            # A cluster may carry TAU2_ variables of others: only a near miss of one of ours is a mistake.
            near = difflib.get_close_matches(name, _PROCESS_VARIABLES, n=1, cutoff=0.85)
            if near:
                raise ConfigError(f"environment variable {name} is unknown; did you mean {near[0]}?")
            if key in REMOVED_KEYS or difflib.get_close_matches(key, fields, n=1, cutoff=0.8):
                raise _unknown(key, f"environment variable {name}", fields)
            continue
        if _is_mapping(fields[key].annotation):
            try:
                found[key] = (name, json.loads(value))
            except json.JSONDecodeError as error:
                raise ConfigError(f"environment variable {name} must hold JSON: {error}") from error
        else:
            found[key] = (name, value)
    return found


def _is_mapping(annotation: object) -> bool:
    """True for a mapping, a model, and what holds one: an environment variable gives these as JSON."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return get_origin(annotation) is dict or any(_is_mapping(part) for part in get_args(annotation))


def from_metadata(metadata: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """The settings in a sample's metadata, which holds other things too; a near miss of a setting is a ConfigError."""
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        name = ALIASES.get(key, key)
        if name in fields:
            if value is not None:
                found[name] = value
        elif key in REMOVED_KEYS or difflib.get_close_matches(str(key), fields, n=1, cutoff=0.85):
            raise _unknown(str(key), "sample.metadata", fields)
    return found


def merged(
    yaml_mapping: Mapping[str, Any] | None, metadata: Mapping[str, Any], environ: Mapping[str, str], fields: Fields
) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that the three sources name, and where each came from; a later source beats an earlier one.

    Raises:
        ConfigError: a key that is not a setting, or a value that looks like a secret.
    """
    values: dict[str, Any] = {}
    source: dict[str, str] = {}

    def take(key: str, value: Any, where: str) -> None:
        values[key], source[key] = value, where

    for key, value in from_yaml(yaml_mapping, fields).items():
        take(key, value, f"'tau2.{key}' of the custom config")
    for key, (name, value) in from_environ(environ, fields).items():
        take(key, value, f"environment variable {name}")
    for key, value in from_metadata(metadata, fields).items():
        take(key, value, f"sample.metadata[{key!r}]")
    for key, value in values.items():
        if key not in _MAY_HOLD_SECRETS and secret_names.looks_like_a_key(value):
            raise ConfigError(
                f"{source[key]} holds what looks like a key: settings are uploaded and logged, so a key belongs into an "
                "environment variable"
            )
    return values, source


def not_valid(error: ValidationError, values: Mapping[str, Any], source: Mapping[str, str]) -> ConfigError:
    """The first thing that is wrong with `merged` settings, in words.

    A value that may hold a key by mistake is not shown, neither here nor in the traceback of ``error``: raise it from None.
    """
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "?"
    secret = key in _MAY_HOLD_SECRETS or secret_names.holds_a_secret(values.get(key))
    shown = "" if secret else f" = {values.get(key)!r}"
    inside = ".".join(str(part) for part in first["loc"][1:])
    said = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # of several settings together; it names them
        return ConfigError(said)
    reason = f"{inside}: {said}" if inside else said
    return ConfigError(f"{source.get(key, key)}{shown} is not valid: {reason}")
