"""v1's files as τ²'s results, for whoever reads those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.taubench_v1.command import results_of
from tau2_slime.evaluation.taubench_v1.recorded import read_results
from tau2_slime.evaluation.taubench_v1.replay import DOMAINS, domain_of, replay, tau2_tasks


def is_v1(path: Path) -> bool:
    """True if ``path`` is a file of tau-bench v1: a JSON list of runs with their trajectories."""
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as opened:
        beginning = opened.read(4096).lstrip()
    return beginning.startswith(b"[") and b'"task_id"' in beginning


def played_again(path: Path, domain: str | None) -> dict[str, Any]:
    """τ²'s results, as plain data, of the runs of a v1 file, whose calls are made again in the installed τ².

    Raises:
        ConfigError: the file cannot be read, or the domain is not one of v1's.
    """
    if domain is not None and domain not in DOMAINS:
        raise ConfigError(f"--domain {domain}: tau-bench v1 has {' and '.join(DOMAINS)} only")
    runs = read_results(path)
    chosen = domain or domain_of(runs)
    tasks = tau2_tasks(runs, chosen)
    replayed = [replay(run, tasks.get(run.task_id), chosen) for run in runs]
    dumped = [task.model_dump(mode="json") for task in tasks.values()]
    found: dict[str, Any] = json.loads(results_of(replayed, dumped, chosen, path.stem).model_dump_json())
    return found
