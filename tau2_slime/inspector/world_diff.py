"""What an episode did to τ²'s database, beside what the gold actions do to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tau2_slime.errors import CannotResume
from tau2_slime.inspector.trajectory import Trajectory

MOST = 200
"""Changes kept of one episode."""
_ABSENT = "(absent)"


@dataclass(frozen=True)
class Change:
    """One field of one record, in the three databases. Values are JSON, cut at 200 characters."""

    path: str
    before: str
    here: str
    gold: str

    @property
    def same(self) -> bool:
        return self.here == self.gold


@dataclass
class Difference:
    """Every field that the episode or gold changed."""

    changes: list[Change] = field(default_factory=list)
    note: str = ""
    """Why there is nothing to compare, or what is left out; empty if all is said."""


def world_diff(one: Trajectory) -> Difference:
    """Replay the episode's and gold's calls in the installed τ² and compare the databases. Never raises."""
    if not one.messages:
        return Difference(note="not compared: the file keeps no messages")
    try:
        return _compare(one)
    except ImportError as error:
        return Difference(note=f"not compared: τ² is not installed ({error})")
    except Exception as error:  # another τ², other tasks, a tool that answers otherwise: a view must not fail for it
        return Difference(note=f"not compared: {type(error).__name__}: {error}"[:300])


def _compare(one: Trajectory) -> Difference:
    from tau2_slime.episode import history
    from tau2_slime.world import domains

    split = one.task_split or _split_of(one.domain, one.task_id)
    task = domains.find_task(one.domain, split, task_id=one.task_id)
    solo = one.agent_type in ("solo", "llm_agent_solo")
    world = domains.World(one.domain, split, task, solo=solo)
    start = list(task.initial_state.message_history or []) if task.initial_state else []
    messages = history.load(one.messages)
    note = ""
    try:
        history.replay(world, start, messages, one.rejected)
    except CannotResume as error:
        note = f"the replay answers otherwise from there on: {error}"
    reference = _reference(one.domain, split, one.task_id)
    worlds = (reference[0], world, reference[1])
    touched = set().union(*(_touched(each) for each in worlds))
    before, here, gold = (_flat_state(each, touched) for each in worlds)
    paths = dict.fromkeys([*before, *here, *gold])
    rows = [Change(p, *(x.get(p, _ABSENT) for x in (before, here, gold))) for p in paths]
    changes = [row for row in rows if not row.before == row.here == row.gold]
    changes.sort(key=lambda change: (change.same, change.path))
    if len(changes) > MOST:
        note = (note + "; " if note else "") + f"{len(changes)} changes, the first {MOST} are kept"
    return Difference(changes[:MOST], note)


def _split_of(domain: str, task_id: str) -> str:
    from tau2_slime.world import domains

    known = domains.splits(domain)
    return next((name for name, ids in known.items() if task_id in ids), "base")


@lru_cache(maxsize=256)
def _reference(domain: str, split: str, task_id: str) -> tuple[Any, Any]:
    """The worlds before the episode and after the gold actions; read, never written."""
    from tau2_slime.world import domains

    task = domains.find_task(domain, split, task_id=task_id)
    start = list(task.initial_state.message_history or []) if task.initial_state else []

    def fresh() -> Any:
        world = domains.World(domain, split, task)
        world.set_state(start)
        world.environment.sync_tools()
        return world

    gold = fresh()
    for action in (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []:
        try:
            gold.environment.make_tool_call(tool_name=action.name, requestor=action.requestor, **action.arguments)
        except Exception:  # τ²'s evaluator goes on too: some gold actions are meant to be refused
            continue
        gold.environment.sync_tools()
    return fresh(), gold


def _touched(world: Any) -> set[tuple[str, Any]]:
    """Records that may differ from those that all episodes share."""
    shared = world.built.database
    db = getattr(world.environment.tools, "db", None)
    if shared is None or db is not shared.db:
        return set()
    return {(name, key) for name in shared.base.tables for key in getattr(db, name).changed()}


def _flat_state(world: Any, touched: set[tuple[str, Any]]) -> dict[str, str]:
    """Path -> value; of tables that episodes share only the ``touched`` records."""
    out: dict[str, str] = {}
    shared = world.built.database
    db = getattr(world.environment.tools, "db", None)
    if shared is not None and db is shared.db:
        for name in shared.base.other_fields:
            out.update(_flat(name, _plain(getattr(db, name))))
        for name, key in touched:
            record = dict.get(getattr(db, name), key)
            if record is not None:
                out.update(_flat(f"{name}.{key}", _plain(record)))
    elif db is not None:
        out.update(_flat("", _plain(db)))
    user_db = getattr(world.environment.user_tools, "db", None)
    if user_db is not None and user_db is not db:
        out.update(_flat("user", _plain(user_db)))
    return out


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else value


def _flat(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), item)
    else:
        text = json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)
        yield path, text if len(text) <= 200 else text[:197] + "..."
