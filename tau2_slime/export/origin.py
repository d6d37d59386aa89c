"""Which of τ²'s tasks an episode was played on, where its file calls the task otherwise.

`convert-v1` names tau-bench v1's tasks by v1's numbers. They are the tasks that became τ²'s, those of its test split among
them, so a name alone proves nothing: what the gold actions write does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tau2_slime.config.task_split import names_a_file
from tau2_slime.data.selection import TEST
from tau2_slime.diagnosis.matching import canonical
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.world import domains

Writes = frozenset[str]


def may_be_held_out(one: Trajectory) -> str:
    """Why a task that τ² does not know by this name may be one of its test split, in words; empty if it cannot be."""
    if not _is_renamed(one):
        return ""
    test, writes = domains.splits(one.domain).get(TEST, ()), _writes(one.domain, one.task or {})
    if not test:
        return ""
    if not writes:
        return f"{one.task_label} is not τ²'s name, and its gold actions write nothing: it may be of τ²'s test split"
    for task_id, known in _known(one.domain).items():
        if task_id in test and writes & known:
            return f"{one.task_label} writes what task {task_id} of τ²'s test split writes"
    return ""


def task_id_of(one: Trajectory) -> str:
    """τ²'s id of the task, where one of its tasks has the same gold writes; else the file's."""
    writes = _writes(one.domain, one.task or {}) if _is_renamed(one) else frozenset()
    found = [task_id for task_id, known in _known(one.domain).items() if known == writes] if writes else []
    return found[0] if found else one.task_id


def _is_renamed(one: Trajectory) -> bool:
    known = domains.splits(one.domain).values()
    return one.task is not None and not names_a_file(one.task_split) and not any(one.task_id in ids for ids in known)


@lru_cache(maxsize=8)
def _known(domain: str) -> dict[str, Writes]:
    """Id -> gold writes, of every task of the domain's ``base`` split, or of all splits where there is none."""
    splits = domains.splits(domain)
    return {
        str(task.id): _writes(domain, task.model_dump(mode="json"))
        for split in (["base"] if "base" in splits else splits)
        for task in domains.tasks(domain, split)
    }


def _writes(domain: str, task: Mapping[str, Any]) -> Writes:
    actions = (task.get("evaluation_criteria") or {}).get("actions") or []
    return frozenset(
        canonical(str(action.get("requestor")), str(action["name"]), action.get("arguments") or {})
        for action in actions
        if action["name"] in domains.write_tools(domain)
    )
