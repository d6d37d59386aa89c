"""Tasks of a file of one's own that are not what they were when a run played them.

Rollouts and evaluations record a digest of each such task. What is said of an episode (its gold, its database, whether it is
worth training on) would be about another task.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tau2_slime.config.task_split import names_a_file, short_name
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.runtime.text import shown


def refuse_changed_tasks(run: Path, trajectories: Iterable[Trajectory], way_out: str) -> None:
    """Nothing, if the tasks of ``run`` are in their files as it played them, or nothing recorded what they were.

    ``way_out``: the end of the error's text. This check passes over a file that is gone.

    Raises:
        ConfigError: the ids of the tasks that have changed or are gone.
    """
    played = {(t.domain, t.task_split, t.task_id) for t in trajectories if names_a_file(t.task_split)}
    recorded = _recorded(run if run.is_dir() else run.parent) if played else {}
    if not recorded:
        return
    from tau2_slime.world import domains

    changed = []
    for domain, split, task_id in sorted(played):
        then = recorded.get(f"{domain} {task_id}") or recorded.get(f"{domain}/{short_name(split)}/{task_id}")
        if then is None:
            continue
        try:
            file = domains.task_file(domain, split)
        except ConfigError:
            continue
        if task_id not in file.positions or file.digest(task_id) != then:
            changed.append(task_id)
    if changed:
        few = ", ".join(map(shown, changed[:10])) + (", ..." if len(changed) > 10 else "")
        raise ConfigError(
            f"{run} played other tasks than its task file holds now: {len(changed)} of {len(played)} have changed or are "
            f"gone ({few}); put the file back, {way_out}"
        )


def _recorded(folder: Path) -> Mapping[str, str]:
    """What the run's folder says: a task's name, as a rollout or an evaluation writes it -> its digest then."""
    found: dict[str, str] = {}
    for name in ("rollout.json", "manifest.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        parts = [content, *_values(_mapping(content).get("protocol"))]
        for part in parts:
            found |= {str(key): str(digest) for key, digest in _mapping(_mapping(part).get("tasks_of_files")).items()}
    return found


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _values(value: object) -> list[object]:
    return list(_mapping(value).values())
