"""Tasks, splits and environments of the installed τ²: parsed once per process, found by id or by position."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import threading
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any

from tau2_slime.config.task_split import names_a_file, path_of, short_name
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.garbage_collection import builds_what_stays
from tau2_slime.runtime.loops import offload
from tau2_slime.world import tau2_compat
from tau2_slime.world.guards import GUARDS, LONG_ANSWER, MAX_ANSWER
from tau2_slime.world.task_files import TaskFile, domain_of_first_task
from tau2_slime.world.task_rules import Kits, problem

try:  # the folder is optional: without it τ²'s own code does the same, more slowly
    from tau2_slime.world.fast.building import fast_environment
    from tau2_slime.world.fast.reading import in_pieces
except ModuleNotFoundError as _error:
    if _error.name not in ("tau2_slime.world.fast", "tau2_slime.world.fast.building"):
        raise
    fast_environment, in_pieces = None, nullcontext  # type: ignore[assignment]

if TYPE_CHECKING:
    from tau2_slime.world.types import DB, Environment, Message, Task, Tau2Tool, ToolCall, ToolMessage


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


# Tools and their schemas by what they depend on. Both live as long as the process, so that an id stays what it is.
_tools: dict[str, tuple[list[Tau2Tool], list[Tau2Tool] | None]] = {}
_schemas: dict[int, dict[str, Any]] = {}


def tool_schema(tool: Tau2Tool) -> dict[str, Any]:
    """The OpenAI function schema of a τ² tool. Every episode shares it: read it, never write to it."""
    return _schemas.get(id(tool)) or tool.openai_schema


class World:
    """One episode's environment: τ²'s own, plus the guards that keep the policy from hanging the process."""

    def __init__(
        self, domain: str, split: str, task: Task, *, solo: bool = False, env_kwargs: dict[str, Any] | None = None
    ):
        """Build a fresh environment for ``task``: the domain's first takes up to 0.5 s, every later one a millisecond.

        Raises what τ²'s constructor raises (no solo mode in this domain).
        """
        self.domain = domain
        self.split = split
        self.task = task
        self.solo = solo
        self.env_kwargs = tau2_compat.environment_kwargs(domain, task, dict(env_kwargs or {}))
        """What τ²'s evaluator must build its own environments with."""
        settings = {key: value for key, value in self.env_kwargs.items() if key not in tau2_compat.TASK_ARGUMENTS}
        self.kind = f"{domain} {json.dumps(settings, sort_keys=True, default=str)}"
        """The same for two environments that differ in nothing but the task they are built for."""
        self.fast = None
        """What `world/fast` does for this environment; None where only τ²'s own way is known to be right."""
        if fast_environment is not None:
            self.fast = fast_environment(domain, self.kind, solo=solo, env_kwargs=self.env_kwargs)
        self.quick = self.fast is not None
        """True if the environment's own work takes less time than handing it to another thread."""
        self.environment: Environment = (
            self.fast.environment
            if self.fast is not None
            else tau2_compat.build_environment(domain, solo=solo, env_kwargs=self.env_kwargs)
        )
        self.policy: str = self.environment.get_policy()
        self.agent_tools, self.user_tools = self._described_tools()
        """τ²'s tools of both sides, for their schemas only: calls go through `call`. Shared between episodes."""
        self.began_with: tuple[Task, list[Message]] | None = None
        """The task and the history that `set_state` applied; None before that, and if it was called a second time."""
        self.ran: list[tuple[ToolCall, ToolMessage]] = []
        """Every call that τ² ran here, with its result."""
        self._fresh = True

    def _described_tools(self) -> tuple[list[Tau2Tool], list[Tau2Tool] | None]:
        # Describing the tools parses every docstring, 15 to 50 ms: once per process, not once per episode.
        own = getattr(self.task, "user_tools", None)
        key = f"{self.kind} {self.solo} {own}"
        found = _tools.get(key)
        if found is None:
            agent = self.environment.get_tools()
            if self.solo and self.environment.user_tools is not None:
                agent += self.environment.get_user_tools()
            user = tau2_compat.user_tools(self.environment, self.task)
            _schemas.update((id(tool), tool.openai_schema) for tool in [*agent, *(user or [])])
            found = _tools[key] = agent, user
        return list(found[0]), found[1]

    def call(self, tool_call: ToolCall) -> tuple[ToolMessage, bool]:
        """Run one tool call: ``(result, reached)``. ``reached`` is False if a guard answered instead of τ²."""
        guard = GUARDS.get(tool_call.name)
        refusal = guard(tool_call.arguments, self.environment.tools) if guard is not None else None
        if refusal is not None:
            return self.error_result(tool_call, refusal), False
        run = self.environment.get_response if self.fast is None else self.fast.run_tool
        result = run(tool_call)
        if len(result.content or "") > MAX_ANSWER and self._only_reads(tool_call):
            return self.error_result(tool_call, LONG_ANSWER), False
        self.ran.append((tool_call, result))
        return result, True

    def _only_reads(self, call: ToolCall) -> bool:
        kit = self.environment.user_tools if call.requestor == "user" else self.environment.tools
        return kit is not None and call.name in kit.tools and bool(kit.tool_type(call.name).value == "read")

    def error_result(self, tool_call: ToolCall, text: str) -> ToolMessage:
        """An error result in τ²'s own form, for a call that must not or cannot reach the environment."""
        return tau2_compat.load().ToolMessage(
            id=tool_call.id, content=f"Error: {text}", requestor=tool_call.requestor, role="tool", error=True
        )

    def set_state(self, history: list[Message]) -> None:
        """Apply the task's initial state and replay ``history``'s tool calls, as τ²'s orchestrator does.

        Raises:
            ValueError, AssertionError: the initial state or the history contradicts itself.
        """
        fresh, self._fresh, self.began_with = self._fresh, False, None
        if self.fast is not None:
            self.fast.set_state(self.task, history)
        else:
            initial = self.task.initial_state
            self.environment.set_state(
                initialization_data=initial.initialization_data if initial else None,
                initialization_actions=initial.initialization_actions if initial else None,
                message_history=history,
            )
        if fresh:
            self.began_with = self.task, list(history)

    @contextmanager
    def reading(self) -> Iterator[DB]:
        """The agent's database for code that only reads it, without private copies of its records."""
        shared = self.fast.database if self.fast is not None else None
        with shared.reading() if shared is not None else nullcontext():
            yield self.environment.tools.db

    def database_state(self) -> Hashable:
        """Equal for two worlds of one task exactly if τ²'s hashes of both their databases are."""
        if self.fast is not None:
            return self.fast.comparable_state()
        return self.environment.get_db_hash(), self.environment.get_user_db_hash()


_quick: set[str] = set()
"""Domains with their environment arguments whose environments take about a millisecond to build from now on."""


async def new_world(domain: str, split: str, task: Task, *, solo: bool, env_kwargs: dict[str, Any]) -> World:
    """A `World`, built off the loop where that takes longer than handing it to another thread."""
    build = partial(World, domain, split, task, solo=solo, env_kwargs=env_kwargs)
    kind = f"{domain} {env_kwargs}"
    if kind in _quick:
        return build()
    world = await offload(build)
    if world.quick:
        _quick.add(kind)
    return world


def _check_domain(domain: str) -> None:
    known = domains()
    if domain not in known:
        raise ConfigError(
            f"domain={domain!r} is unknown; the installed {tau2_compat.version()} has: {', '.join(known)}"
        )
