"""`manifest.json` of an evaluation's folder: everything that its numbers depend on.

Three parts. ``subject``: the policy, which a comparison is about. ``protocol``: for each dataset, what must be equal for
numbers to be comparable (`protocol`). ``software``: what else was installed.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from tau2_slime import __version__
from tau2_slime.config.task_split import names_a_file
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import Plan
from tau2_slime.evaluation.store.protocol import DatasetProtocol, dataset_protocol, digest
from tau2_slime.runtime.files import write_atomically

FILE = "manifest.json"
FORMAT = 1

GROWING = ("tasks", "attempts")
"""Parts of the protocol that may grow in a folder: more tasks, more attempts."""


class Manifest(TypedDict):
    """The content of the file."""

    format: int
    subject: dict[str, Any]
    """Description of the policy: ``kind``, ``name`` and more."""
    protocol: dict[str, DatasetProtocol]
    """Dataset -> its protocol."""
    software: dict[str, str]
    """Package -> version."""
    source: str
    """The configuration file, or "command line"."""


FieldDifference = tuple[str, object, object]
"""Dotted name of a field, and its two values."""


def build(plan: Plan, subject: Mapping[str, object]) -> Manifest:
    """The manifest of ``plan`` played by ``subject``. Builds an environment per domain: call it off the event loop."""
    return {
        "format": FORMAT,
        "subject": dict(subject),
        "protocol": {dataset.name: dataset_protocol(dataset) for dataset in plan.datasets},
        "software": {
            "tau2_slime": __version__,
            "litellm": importlib.metadata.version("litellm"),
            "transformers": importlib.metadata.version("transformers"),
        },
        "source": plan.source,
    }


def differences(one: object, other: object, at: str = "") -> list[FieldDifference]:
    """Every leaf in which two parts of manifests differ; ``at``: the name of the part."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found = []
        for key in dict.fromkeys([*one, *other]):
            found += differences(one.get(key), other.get(key), f"{at}.{key}" if at else str(key))
        return found
    return [] if one == other else [(at, one, other)]


def protocol_differences(one: DatasetProtocol, other: DatasetProtocol) -> list[FieldDifference]:
    """In what two protocols ask different things. More tasks or more attempts do not count.

    The reward basis is a digest over the tasks, so it is compared only where the tasks are the same.
    """
    skip = {*GROWING, *(("reward_basis",) if one["tasks"] != other["tasks"] else ())}
    old, new = ({key: value for key, value in part.items() if key not in skip} for part in (one, other))
    before, now = (cast("dict[str, str]", part.get("tasks_of_files") or {}) for part in (one, other))
    same_file = one["task_files"] == other["task_files"]
    changed: list[FieldDifference] = [
        (f"tasks_of_files.{name}", digest, now.get(name))
        for name, digest in before.items()
        if now.get(name, digest if same_file else None) != digest
    ]
    if before and now:  # what counts of a file of one's own are the tasks that both have
        for part in (old, new):
            part.pop("tasks_of_files", None)
            files = cast("dict[str, str]", part["task_files"])
            part["task_files"] = {name: sha for name, sha in files.items() if not names_a_file(name)}
    return [*differences(old, new), *changed]


def open_folder(folder: Path, manifest: Manifest) -> Manifest:
    """Write ``manifest`` into ``folder``, or check that the run there is the same one; more tasks or attempts are taken in.

    Raises:
        ConfigError: the folder holds another run; the fields that differ are named.
    """
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = read(folder) if path.exists() else None
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from None
    merged = manifest.copy()
    if earlier is not None:
        found = [
            (field, was, now)
            for field, was, now in differences(earlier["subject"], manifest["subject"], "subject")
            if not (field == "subject.tool_call_parser" and _is_name_of(was, now))
        ]
        for name, old in earlier["protocol"].items():
            if name in manifest["protocol"]:
                changed = protocol_differences(old, manifest["protocol"][name])
                # A field that an earlier version did not record cannot contradict it.
                found += [(f"{name}.{at}", was, now) for at, was, now in changed if at.partition(".")[0] in old]
        if found:
            fields = "; ".join(f"{field}: {_short(was)} there, {_short(now)} now" for field, was, now in found[:5])
            raise ConfigError(f"{folder} holds another run: {fields}. Give another --output-dir")
        merged["protocol"] = {**earlier["protocol"], **manifest["protocol"]}
    write_atomically(path, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return merged


def read(folder: Path) -> Manifest:
    """The manifest of a run's folder.

    Raises:
        ConfigError: the file is missing, damaged, or of another format.
    """
    path = folder / FILE
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ConfigError(f"{path} has format {manifest['format']}; this version reads {FORMAT}")
        manifest["subject"]["name"], [part["tasks"] for part in manifest["protocol"].values()]
    except OSError as error:
        raise ConfigError(
            f"{folder} is not the folder of an evaluation: {FILE} cannot be read ({error.strerror})"
        ) from None
    except ConfigError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    return cast("Manifest", manifest)


def protocol_digest(manifest: Manifest) -> str:
    """Twelve hexadecimal digits that name the run: the same for the same policy under the same protocol."""
    return digest([manifest["subject"], manifest["protocol"]])[:12]


_PARSER_CLASSES = {"HermesParser": "hermes", "QwenXmlParser": "qwen_xml", "GlmParser": "glm", "SglangParser": "sglang:"}
"""The class that earlier versions recorded as ``tool_call_parser`` -> the parser's name, or how all its names begin."""


def _is_name_of(recorded: object, name: object) -> bool:
    """True if ``recorded`` is the class that an earlier version recorded for the parser called ``name``."""
    known = _PARSER_CLASSES.get(str(recorded), "")
    return bool(known) and (name == known or (known.endswith(":") and str(name).startswith(known)))


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
