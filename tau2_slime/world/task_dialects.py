"""Tasks as other people's generators write them, made into τ²'s own form.

Four things are met in the field: a task under ``data`` of an envelope, ``description`` as a text (its parts may stand
under ``tau_description``), ``evaluation_criteria`` as JSON in a text, and a ``db_path``, which names a database (JSON or
TOML, as τ²'s own domains have them) beside the task file that many tasks use.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import InitializationData

DATABASE = "db_path"
"""Of a task: the agent's database, relative to the folder of the task file."""
MOST_BYTES = 1 << 28
"""Of one database."""


class NotReadable(Exception):
    """What a row says of itself cannot be followed; the message says why."""


class Database(NamedTuple):
    """A database that tasks share."""

    change: InitializationData
    """One object for all of them, so that it is merged into τ²'s database once."""
    sha256: str


def as_tau2_has_it(content: dict[str, Any], folder: Path, databases: dict[str, Database]) -> Mapping[str, Any]:
    """``content`` of a row as τ²'s `Task` takes it; the same object if it is in that form already.

    Args:
        content: a JSON object.
        folder: of the task file.
        databases: by name, those that were read already. One that ``content`` names is added.

    Raises:
        NotReadable: a text is not JSON, or a database is missing, outside ``folder`` or not a JSON object.
    """
    inner = content.get("data")
    if isinstance(inner, dict) and "user_scenario" in inner and "user_scenario" not in content:
        content = inner
    criteria, path, described = content.get("evaluation_criteria"), content.get(DATABASE), content.get("description")
    if not isinstance(criteria, str) and path is None and not isinstance(described, str):
        return content
    content = dict(content)
    if isinstance(described, str):
        parts = content.get("tau_description")
        content["description"] = parts if isinstance(parts, dict) else {"purpose": described}
    if isinstance(criteria, str):
        content["evaluation_criteria"] = _object(criteria, "evaluation_criteria")
    if path is not None:
        initial = dict(content.get("initial_state") or {})
        if initial.get("initialization_data") is not None:
            raise NotReadable(f"{DATABASE} and initial_state.initialization_data name two databases")
        initial["initialization_data"] = _database(path, folder, databases).change
        content["initial_state"] = {"initialization_actions": None, "message_history": None, **initial}
    return content


def _database(name: object, folder: Path, databases: dict[str, Database]) -> Database:
    if not isinstance(name, str) or not name:
        raise NotReadable(f"{DATABASE} is not a path")
    found = databases.get(name)
    if found is not None:
        return found
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise NotReadable(f"{DATABASE} leads out of the folder of the task file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise NotReadable(f"{DATABASE} {name!r}: more than {MOST_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise NotReadable(f"{DATABASE} {name!r} cannot be read: {error.strerror or error}") from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NotReadable(f"{DATABASE} {name!r} is not UTF-8 text") from None
    change = tau2_compat.load().InitializationData(agent_data=_object(text, f"{DATABASE} {name!r}", path.suffix))
    databases[name] = Database(change, hashlib.sha256(data).hexdigest())
    return databases[name]


def _object(text: str, what: str, suffix: str = ".json") -> dict[str, Any]:
    toml = suffix == ".toml"
    try:
        found = tomllib.loads(text) if toml else json.loads(text)
    except (ValueError, RecursionError):
        raise NotReadable(f"{what} is not {'TOML' if toml else 'JSON'}") from None
    if not isinstance(found, dict):
        raise NotReadable(f"{what} is not a JSON object")
    return found
