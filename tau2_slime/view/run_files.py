"""Paths that a reader named -> the files to read, each with its run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from tau2_slime.errors import ConfigError
from tau2_slime.inspector.found import ACCEPTED
from tau2_slime.inspector.sources import files_of


def found_files(paths: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """The files below ``paths``, each with what the reader calls its run, and a line for each path that has none."""
    found: dict[Path, str] = {}
    problems: list[str] = []
    for path, label in zip(paths, _labels(paths), strict=True):
        try:
            for run, files in _runs_in(path).items():
                below = run if len(paths) == 1 else f"{label}/{run}"
                for file in files:
                    found.setdefault(with_words(file), below if run else label)
        except ConfigError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: {error.strerror or error}")
    return found, problems


def _runs_in(path: Path) -> dict[str, list[Path]]:
    """Run -> its files. The run of ``path`` itself has no name; in a folder of runs each is called as its folder."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; give {ACCEPTED}")
    try:
        return {"": files_of(path)}
    except ConfigError:
        found = {}
        for folder in sorted(path.iterdir()) if path.is_dir() else []:
            with contextlib.suppress(ConfigError):
                if folder.is_dir():
                    found[folder.name] = files_of(folder)
        if not found:
            raise
        return found


def with_words(file: Path) -> Path:
    """Of a rollout's two files the one with the conversations, which has the tokens too."""
    talk = file.with_name("trajectories.jsonl")
    return talk if file.name == "samples.jsonl" and talk.is_file() else file


def _labels(paths: Sequence[Path]) -> list[str]:
    """What the runs are called: the name of the folder or file; as much of the path as tells them apart."""
    resolved = [path.resolve() for path in paths]
    for length in range(1, 8):
        names = ["/".join(path.parts[-length:]) for path in resolved]
        if len({*names}) == len(names):
            return names
    return [f"{path.name}@{number}" for number, path in enumerate(paths)]
