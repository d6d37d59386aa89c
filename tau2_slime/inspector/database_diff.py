"""What an episode did to τ²'s database, beside what the gold actions do to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from tau2_slime.errors import CannotResume
from tau2_slime.inspector.trajectory import Trajectory

if TYPE_CHECKING:
    from tau2_slime.world.environment import World
    from tau2_slime.world.types import Task

MOST = 200
"""Changed fields that are kept of one episode."""
_ABSENT = "(absent)"


@dataclass(frozen=True)
class FieldChange:
    """One field of one record, in the three databases. Values are JSON, cut at 200 characters."""

    path: str
    before: str
    here: str
    gold: str

    @property
    def same(self) -> bool:
        """True if the episode left the field as the gold actions leave it."""
        return self.here == self.gold


@dataclass
class DatabaseDiff:
    """Every field that the episode or the gold actions changed; first those where the two differ."""

    changes: list[FieldChange] = field(default_factory=list)
    note: str = ""
    """Why there is nothing to compare, or what is left out; empty if everything is compared."""


def compare_with_gold(trajectory: Trajectory) -> DatabaseDiff:
    """Replay the episode's and gold's calls in the installed τ² and compare the databases. Never raises."""
    if not trajectory.messages:
        return DatabaseDiff(note="not compared: the file keeps no messages")
    try:
        return _compare(trajectory)
    except ImportError as error:
        return DatabaseDiff(note=f"not compared: τ² is not installed ({error})")
    except Exception as error:  # another τ², other tasks, a tool that answers otherwise: a view must not fail for it
        return DatabaseDiff(note=f"not compared: {type(error).__name__}: {error}"[:300])


def _compare(trajectory: Trajectory) -> DatabaseDiff:
    from tau2_slime.episode import history
    from tau2_slime.world.environment import World

    domain = trajectory.domain
    task, split = task_of(trajectory)
    solo = trajectory.agent_type in ("solo", "llm_agent_solo")
    world = World(domain, split, task, solo=solo, env_kwargs=trajectory.environment)
    notes = []
    try:
        history.replay_calls(world, world.history, history.load_messages(trajectory.messages), trajectory.rejected)
    except CannotResume as error:
        notes.append(f"the replay answers otherwise from there on: {error}")
    before, gold = _reference_worlds(domain, split, task)
    changes = _changes(before, world, gold)
    if len(changes) > MOST:
        notes.append(f"{len(changes)} changes, the first {MOST} are kept")
    return DatabaseDiff(changes[:MOST], "; ".join(notes))


def task_of(trajectory: Trajectory) -> tuple[Task, str]:
    """The task of an episode and its split: the file's own task, where it brings one, else the installed τ²'s.

    Raises:
        ConfigError: the file brings none, and the installed τ² has no such domain or task.
        ValueError: the file's own is not a task of the installed τ².
    """
    from tau2_slime.world import domains

    domain, task_id = trajectory.domain, trajectory.task_id
    if trajectory.task is not None:
        return _own_task(json.dumps(trajectory.task, sort_keys=True)), trajectory.task_split or "base"
    split = trajectory.task_split or _split_of(domain, task_id)
    return domains.find_task(domain, split, task_id=task_id), split


@lru_cache(maxsize=4096)
def _own_task(written: str) -> Task:
    """One object for all attempts of a task, so that its gold end state is computed once."""
    from tau2_slime.world import tau2_compat

    task: Task = tau2_compat.load().Task.model_validate_json(written)
    return task


def _split_of(domain: str, task_id: str) -> str:
    from tau2_slime.world import domains

    known = domains.splits(domain)
    return next((name for name, ids in known.items() if task_id in ids), "base")


_references: dict[int, tuple[Task, World, World]] = {}
MAX_REFERENCES = 256


def _reference_worlds(domain: str, split: str, task: Task) -> tuple[World, World]:
    """The worlds before the episode and after the gold actions; read, never written."""
    from tau2_slime.world.environment import World

    known = _references.get(id(task))
    if known is not None:
        return known[1:]

    def fresh() -> World:
        world = World(domain, split, task)
        world.set_state(world.history)
        world.environment.sync_tools()
        return world

    gold = fresh()
    for action in (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []:
        try:
            gold.environment.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
        except Exception:  # τ²'s evaluator goes on too: some gold actions are meant to be refused
            continue
        gold.environment.sync_tools()
    while len(_references) >= MAX_REFERENCES:
        del _references[next(iter(_references))]
    _references[id(task)] = task, fresh(), gold  # the task is kept with it, so that no other object gets its id
    return _references[id(task)][1:]


def _changes(before: World, here: World, gold: World) -> list[FieldChange]:
    """Every field that is not the same in all three, agent's and user's database, first those where here is not gold."""
    changes = list(_differences("", [_databases(world) for world in (before, here, gold)]))
    return sorted(changes, key=lambda change: (change.same, change.path))


def _databases(world: World) -> dict[str, object]:
    """The agent's tables by name, and the user's database, where it has one of its own, as ``user``."""
    agent = getattr(world.environment.tools, "db", None)
    user = getattr(world.environment.user_tools, "db", None)
    return {**(_children(agent) or {}), **({} if user is None or user is agent else {"user": user})}


def _differences(path: str, values: list[object]) -> Iterator[FieldChange]:
    """The fields below ``path`` that differ; ``values`` is what stands there in each database."""
    first, *others = values
    # Episodes share the records that they have not touched: for those a look at the identity is enough.
    if all(other is first or other == first for other in others):
        return
    parents = [_children(value) for value in values]
    if any(parent is None for parent in parents):
        yield FieldChange(path, *map(_text, values))
        return
    for key in dict.fromkeys(key for parent in parents for key in parent or ()):
        # Not `parent.get`: a table that episodes share copies a record for whoever asks it for one.
        below = [dict.get(parent or {}, key, _ABSENT) for parent in parents]
        yield from _differences(f"{path}.{key}" if path else str(key), below)


def _children(value: object) -> dict[str, object] | None:
    """The fields or records of ``value``; None for a value without any."""
    if value is _ABSENT:
        return {}
    if isinstance(value, BaseModel):
        return dict(value)
    return value if isinstance(value, dict) else None


def _text(value: object) -> str:
    if value is _ABSENT:
        return _ABSENT
    text = json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False, sort_keys=True)
    return text if len(text) <= 200 else text[:197] + "..."
