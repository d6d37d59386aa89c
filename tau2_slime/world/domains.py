"""Domains, splits and tasks of the installed τ²: parsed once per process, found by id or by position."""

from __future__ import annotations

import difflib
import hashlib
import os
import threading
from collections.abc import Collection, Sequence
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

from tau2_slime.config.task_split import names_a_file, path_of, short_name
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.garbage_collection import builds_what_stays
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World, in_pieces
from tau2_slime.world.task_files import TaskFile, domain_of_first_task
from tau2_slime.world.task_rules import Kits, problem

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


def domains() -> list[str]:
    """Every domain that the installed τ² registers with both an environment and tasks."""
    registry = tau2_compat.load().registry
    task_sets = set(registry.get_task_sets())
    return sorted(d for d in registry.get_domains() if d in task_sets)


@lru_cache(maxsize=64)
def splits(domain: str) -> dict[str, tuple[str, ...]]:
    """Split name -> task ids, as τ² names them. A domain without a split file has ``base`` and `divided_by_seed`.

    Raises:
        ConfigError: τ² has no such domain.
    """
    _check_domain(domain)
    loader = tau2_compat.load().registry.get_task_splits_loader(domain)
    if loader is not None:
        return {name: tuple(ids) for name, ids in loader().items()}
    ids = tuple(task.id for task in _all_tasks(domain))
    return {"base": ids, **divided_by_seed(ids)}


SPLIT_SEED = 0
TEST_SHARE = 0.3
"""Of the tasks of a domain that τ² does not divide."""


def divided_by_seed(ids: Sequence[str], seed: int = SPLIT_SEED) -> dict[str, tuple[str, ...]]:
    """``train`` and ``test`` of a domain that τ² does not divide, each in τ²'s order; nothing below ten tasks.

    A task's place depends on the hash of seed and id, so a task that τ² adds or drops moves hardly another one.
    """
    if len(ids) < 10:
        return {}
    ranked = sorted(ids, key=lambda task_id: hashlib.sha256(f"{seed}/{task_id}".encode()).digest())
    test = set(ranked[: round(TEST_SHARE * len(ids))])
    return {"train": tuple(i for i in ids if i not in test), "test": tuple(i for i in ids if i in test)}


def made_split_hash(domain: str, split: str) -> str | None:
    """SHA-256 of the ids in a split that `divided_by_seed` made, one a line; None for a split of τ²'s own."""
    if split not in ("train", "test") or split not in splits(domain):
        return None
    if tau2_compat.load().registry.get_task_splits_loader(domain) is not None:
        return None
    return hashlib.sha256("\n".join(splits(domain)[split]).encode()).hexdigest()


_reading = threading.Lock()


def _all_tasks(domain: str) -> tuple[Task, ...]:
    with _reading:  # telecom's 2,285 take a second: read once, however many ask first
        return _read_tasks(domain)


@lru_cache(maxsize=64)
def _read_tasks(domain: str) -> tuple[Task, ...]:
    load = tau2_compat.load().registry.get_tasks_loader(domain)
    with builds_what_stays(), in_pieces():
        return tuple(load(None))


def _in_a_forked_child() -> None:
    global _reading, _opening
    _reading, _opening = threading.Lock(), threading.Lock()  # the thread that held one does not exist here
    for file in _files.values():
        file.in_a_forked_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_forked_child)


class Split(tuple["Task", ...]):
    """The tasks of one of τ²'s splits, in its order."""

    @cached_property
    def positions(self) -> dict[str, int]:
        """Task id -> position in the sequence."""
        return {task.id: position for position, task in enumerate(self)}


def tasks(domain: str, split: str) -> Split | TaskFile:
    """The tasks of a split in τ²'s order, or those of a task file (``file:PATH``) in the file's.

    Every episode shares them: read them, never write to them.

    Raises:
        ConfigError: τ² has no such domain, or the domain no such split; or a task of the file cannot be played.
    """
    if names_a_file(split):
        file = task_file(domain, split)
        file.require_no_fault()
        return file
    return _split_tasks(domain, split)


@lru_cache(maxsize=64)
def _split_tasks(domain: str, split: str) -> Split:
    known = splits(domain)
    if split not in known:
        raise ConfigError(
            f"task_split={split!r} is not a split of domain {domain!r}; it has: {', '.join(known)} (a file of tasks is "
            "file:PATH)"
        )
    wanted = set(known[split])
    return Split(task for task in _all_tasks(domain) if task.id in wanted)


def usual_split(domain: str, usual: str, task_ids: Collection[str] = ()) -> str:
    """``usual`` if the domain has such a split with all of ``task_ids``, else base: who names a task need not know where
    it stands.

    Raises:
        ConfigError: τ² has no such domain.
    """
    known = splits(domain)
    return usual if usual in known and set(task_ids) <= set(known[usual]) else "base"


_files: dict[tuple[str, str], TaskFile] = {}
"""(domain, split) -> the file, read once a process."""
_opening = threading.Lock()


def task_file(domain: str, split: str) -> TaskFile:
    """The tasks of ``file:PATH``, checked against the tools of ``domain``; the rows that cannot be played are its faults.

    Raises:
        ConfigError: τ² has no such domain, or the file cannot be read.
    """
    _check_domain(domain)
    with _opening:
        found = _files.get((domain, split))
        if found is None:
            found = _files[domain, split] = TaskFile(path_of(split), partial(problem, kits=_kits(domain)))
    return found


@lru_cache(maxsize=64)
def write_tools(domain: str) -> frozenset[str]:
    """The tools of both sides that say of themselves that they change a database."""
    kits = [kit for kit in _kits(domain) if kit is not None]
    return frozenset(name for kit in kits for name in kit.tools if kit.tool_type(name).value == "write")


def domain_of_file(split: str) -> str:
    """The domain that the first task of ``file:PATH`` names in its user's instructions.

    Raises:
        ConfigError: it names none, or the file cannot be read.
    """
    name = domain_of_first_task(path_of(split))
    if name not in domains():
        raise ConfigError(f"{short_name(split)}: its first task does not say of which domain it is: give --domain")
    return name


@lru_cache(maxsize=64)
def _kits(domain: str) -> Kits:
    first = next(iter(splits(domain)))
    environment = World(domain, first, tasks(domain, first)[0]).environment
    return Kits(environment.tools, environment.user_tools)


loaded: dict[tuple[str, str], Split | TaskFile] = {}
"""(domain, split) -> the tasks among which `find_task` has looked: it need not read a file any more."""


def find_task(domain: str, split: str, *, task_id: str | None = None, index: int | None = None) -> Task:
    """The task named by ``task_id`` or by its position ``index`` in the split (from 0); both may be given if they agree.

    Raises:
        ConfigError: neither is given, nothing matches, or they disagree.
    """
    pool = loaded.get((domain, split))
    if pool is None:
        pool = loaded[domain, split] = tasks(domain, split)
    if task_id is not None:
        positions = pool.positions
        position = positions.get(str(task_id))
        if position is None:
            near = difflib.get_close_matches(str(task_id), positions, n=3) if len(positions) < 10_000 else []
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"no task {task_id!r} in {domain}/{short_name(split)} ({len(pool)} tasks){hint}")
        if index is not None and index != position:
            there = repr(pool[index].id) if 0 <= index < len(pool) else "nothing"
            raise ConfigError(
                f"task_id={task_id!r} and index={index} disagree: position {index} of {domain}/{short_name(split)} holds "
                f"{there}; prepare the data again with the installed τ² and the same task file, or drop one of the two"
            )
        return pool[position]
    if index is None:
        raise ConfigError("the sample names no task: give metadata.task_id, or an integer index as the prompt")
    if not 0 <= index < len(pool):
        where = f"{domain}/{short_name(split)}"
        raise ConfigError(f"index={index} is outside {where}, which has {len(pool)} tasks (0 to {len(pool) - 1})")
    return pool[index]


def position_of(domain: str, split: str, task_id: str) -> int:
    """Where the task stands in its split, from 0. Raises KeyError if it does not."""
    return tasks(domain, split).positions[task_id]


def _check_domain(domain: str) -> None:
    known = domains()
    if domain not in known:
        raise ConfigError(
            f"domain={domain!r} is unknown; the installed {tau2_compat.version()} has: {', '.join(known)}"
        )
