"""How a setting names tasks: a split of τ² by its name, or a file of one's own as ``file:PATH``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

PREFIX = "file:"
KEYS = ("task_split", "split")
"""Under these keys a mapping of settings may name tasks."""
PATHS = frozenset({*KEYS, "task_files", "few_shot"})
"""Under these keys it may name files."""


def names_a_file(split: object) -> bool:
    """True for ``file:PATH``."""
    return isinstance(split, str) and split.startswith(PREFIX)


def path_of(split: str) -> Path:
    """The path in ``file:PATH``."""
    return Path(split.removeprefix(PREFIX))


def short_name(split: str) -> str:
    """``file:tasks.jsonl`` for any path that ends so, the same on every machine. The name of a split of τ² is itself."""
    return f"{PREFIX}{path_of(split).name}" if names_a_file(split) else split


def absolute(split: str, *folders: Path) -> str:
    """``split`` with an absolute path.

    Args:
        split: what a setting says.
        folders: those of the files that may have named it. A relative path counts from the first of them that has such a
            file, else from the first; without any, from the working directory.
    """
    if not names_a_file(split):
        return split
    path = path_of(split).expanduser()
    places = [folder / path for folder in folders] or [path]
    chosen = next((place for place in places if place.exists()), places[0])
    return f"{PREFIX}{os.path.abspath(chosen)}"


def anchored(settings: Mapping[str, object], *folders: Path) -> dict[str, object]:
    """``settings`` (of a YAML file, or a row's metadata) with the paths of task files and examples made `absolute`."""
    found = dict(settings)
    for key in KEYS:
        if names_a_file(found.get(key)):
            found[key] = absolute(str(found[key]), *folders)
    files = found.get("task_files")
    if isinstance(files, Mapping):
        found["task_files"] = {
            name: absolute(f"{PREFIX}{path}", *folders).removeprefix(PREFIX) if isinstance(path, str) else path
            for name, path in files.items()
        }
    examples = found.get("few_shot")
    if isinstance(examples, str) and examples:
        found["few_shot"] = absolute(f"{PREFIX}{examples}", *folders).removeprefix(PREFIX)
    return found


def named(split: str, task_files: Mapping[str, str]) -> str:
    """``split``, or the file for which the settings' ``task_files`` have it as a name; its path is absolute."""
    return absolute(f"{PREFIX}{task_files[split]}" if split in task_files else split)


RESERVED = ("train", "test", "base")
"""Splits of τ² that nearly every domain has."""


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for a name of a task file that would hide a split of τ², or could not be told from a path."""
    for name in names:
        if name in RESERVED or names_a_file(name) or not name.strip():
            raise ValueError(f"{name!r} cannot name a task file: it is a split of τ², or not a name")
