"""τ²'s own results as episodes: one file, a folder with a file for each simulation, or a value in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.inspector import row_formats
from tau2_slime.inspector.found import ACCEPTED, NOT_AN_EPISODE, FoundEpisodes, make_names_unique

RUNS = "simulations"
"""Where τ² from 1.0 on may keep one file for each simulation, beside its results.json."""


def read_results(file: Path, found: FoundEpisodes) -> None:
    """τ²'s results in one file; in a results.json with a file for each simulation beside it; or one of these files."""
    written = _json_object(file)
    runs: list[tuple[str, object]]
    if isinstance(written.get("simulations"), list) and written["simulations"]:
        runs = [(f"{file.name}[{position}]", run) for position, run in enumerate(written["simulations"])]
    elif "termination_reason" in written and "task_id" in written:
        runs = [(file.name, written)]
        results = file.parent.parent / "results.json"
        written = _json_object(results) if file.parent.name == RUNS and results.is_file() else {}
    elif (file.parent / RUNS).is_dir():
        runs = []
        files = sorted((file.parent / RUNS).glob("*.json"))
        for one in files:
            try:
                runs.append((f"{RUNS}/{one.name}", _json_object(one)))
            except ConfigError as error:
                found.unreadable.append(str(error))
        there = {one.stem for one in files}
        index = written.get("simulation_index")
        for entry in index if isinstance(index, list) else []:
            if isinstance(entry, dict) and str(entry.get("id")) not in there:
                found.unreadable.append(f"{RUNS}/{entry.get('id')}.json: named by {file.name}, but missing")
    elif isinstance(written.get("simulations"), list):
        runs = []
    else:
        raise ConfigError(f"{file}: not τ²'s results: it has no simulations; give {ACCEPTED}")
    _add_runs(runs, written, found)


def add_results(written: Mapping[str, Any], name: str, found: FoundEpisodes) -> None:
    """Add the simulations of τ²'s results that are in memory; ``name``: what the place of an episode is called."""
    runs = [(f"{name}[{position}]", run) for position, run in enumerate(written.get("simulations") or [])]
    _add_runs(runs, written, found)
    make_names_unique(found.trajectories)


def _add_runs(runs: Sequence[tuple[str, object]], written: Mapping[str, Any], found: FoundEpisodes) -> None:
    known = written.get("tasks")
    tasks = {str(task.get("id")): task for task in (known if isinstance(known, list) else []) if isinstance(task, dict)}
    info = written.get("info")
    for where, run in runs:
        try:
            if not isinstance(run, dict):
                raise TypeError(f"a mapping was expected, not {type(run).__name__}")
            given = info if isinstance(info, dict) else {}
            found.trajectories.append(row_formats.from_simulation(run, where, given, tasks))
        except NOT_AN_EPISODE as error:
            found.unreadable.append(f"{where}: not a simulation: {type(error).__name__}: {error}")


def _json_object(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not τ²'s results: {type(error).__name__}: {error}; give {ACCEPTED}") from error
    if isinstance(written, list) and written and isinstance(written[0], dict) and "traj" in written[0]:
        raise ConfigError(
            f"{file}: runs of tau-bench v1: `tau2-slime convert-v1 {file} --output-dir DIR` makes τ²'s results of them "
            "(`tau2-slime diagnose` reads them as they are)"
        )
    if not isinstance(written, dict):
        raise ConfigError(f"{file}: not τ²'s results: {type(written).__name__}; give {ACCEPTED}")
    return written
