"""One engine: the same script through every door is the same conversation, end and reward as in τ²'s own Orchestrator.

docs/parity.md says what is played, and where a door and τ² differ on purpose.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.world import domains
from tests.backends.doors import cases as scripts
from tests.backends.doors.cases import Cases
from tests.backends.doors.checkpoint import qwen3
from tests.backends.doors.compare import differences, shown, told_to_user
from tests.backends.doors.records import renamed
from tests.backends.doors.run import DOORS, SAMPLED, TOLD, Played, play

FULL = bool(os.environ.get("TAU2_SLIME_FULL"))
DOMAINS = ("mock", "airline", "retail", "telecom")
SAMPLE = {"mock": 99, "airline": 2, "retail": 2, "telecom": 3}
"""Tasks of each domain where only some are played."""
CHUNK = 300


def sample() -> Cases:
    """Every task of mock, some of the other domains; every script written by hand in two domains; solo play."""
    parts = []
    for domain, count in SAMPLE.items():
        every = scripts.every_task(domain)
        chosen = sorted(random.Random(domain).sample(sorted(every), min(count, len(every))))
        special = domain in ("mock", "telecom")
        tasks = {task_id: every[task_id] for task_id in chosen}
        parts.append(scripts.gather(domain, tasks, seeds=2, special=int(special), solo=True))
    return scripts.joined(*parts, *map(from_a_file, ("mock", "retail")))


def from_a_file(domain: str) -> Cases:
    """Gold and wrong scripts of two tasks of a file under ids that τ² has too, one with a record of its own."""
    found = [task.model_dump(mode="json") for task in domains.tasks(domain, "base")[:2]]
    table, records = {"mock": ("users", {"user_9": {"user_id": "user_9", "name": "Nine", "tasks": []}})}.get(
        domain, ("users", {})
    )
    data = {"initialization_data": {"agent_data": {table: records}, "user_data": None}}
    found[0]["initial_state"] = {**data, "initialization_actions": None, "message_history": None}
    path = Path(tempfile.mkdtemp()) / f"{domain}.json"
    path.write_text(json.dumps(found))
    split = f"file:{path}"
    return scripts.gather(domain, {task.id: (split, task) for task in domains.tasks(domain, split)}, seeds=0)


def chunk(domain: str, number: int, *, base: bool) -> Cases:
    """Every task of one split or the other: gold, wrong, random and solo play in base, gold and random beyond it."""
    tasks = {i: (split, task) for i, (split, task) in scripts.every_task(domain).items() if (split == "base") == base}
    chosen = dict(list(tasks.items())[number * CHUNK : (number + 1) * CHUNK])
    found = scripts.gather(domain, chosen, seeds=2 if base else 1, special=2 if base else 0, solo=base)
    return found if base else scripts.joined(Cases(case for case in found if case.kind != "wrong"))


def parts() -> dict[str, Callable[[], Cases]]:
    found: dict[str, Callable[[], Cases]] = {"sample": sample}
    if FULL:
        for domain in DOMAINS:
            found[f"{domain}-base"] = lambda domain=domain: chunk(domain, 0, base=True)
            beyond = sum(split != "base" for split, _ in scripts.every_task(domain).values())
            for number in range(-(-beyond // CHUNK)):
                found[f"{domain}-{number}"] = lambda domain=domain, number=number: chunk(domain, number, base=False)
    return found


PARTS = parts()


@pytest.fixture(scope="module", params=list(PARTS))
def played(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("doors")
    return play(PARTS[request.param](), folder, qwen3(folder / "checkpoint"))


@pytest.mark.timeout(14400 if FULL else 1200)
@pytest.mark.parametrize("door", DOORS)
def test_it_is_what_tau2_itself_plays(played: Played, door: str) -> None:
    if door in played.missing:
        pytest.skip(played.missing[door])
    records = played.records[door]
    assert list(records) == [case.key for case in played.cases]
    found = [d for case in played.cases for d in differences(case, records[case.key], played.expected(case, door))]
    assert not found, f"{len(found)} differences:\n" + "\n".join(line[:1500] for line in found[:10])
    expected = [played.expected(case, door) for case in played.cases]
    ends: dict[str, int] = {}
    for one in expected:
        ends[one.record["termination"]] = ends.get(one.record["termination"], 0) + 1
    solved = sum(one.record["reward"] == 1.0 for one in expected)
    unreadable = sum(len(one.unreadable) for one in expected)
    tasks = len({(case.domain, case.task_id) for case in played.cases})
    print(f"\n{door}: {len(expected)} episodes of {tasks} tasks, {solved} earn 1.0, {ends}, {unreadable=}")


@pytest.mark.parametrize("doors", [SAMPLED, TOLD], ids=["sampled", "told"])
def test_doors_of_a_kind_agree_in_every_word(played: Played, doors: tuple[str, ...]) -> None:
    """Also in what they make of a call that nobody can read, and in whose doing the end was."""
    here = [door for door in doors if door in played.records]
    if len(here) < 2:
        pytest.skip(str(played.missing))
    first = played.records[here[0]]
    for door in here[1:]:
        for case in played.cases:
            mine, theirs = played.records[door][case.key], first[case.key]
            where = f"{case.kind}, {case.domain}/{case.task_id} ({case.key}): {door}, {here[0]}"
            assert _said(mine) == _said(theirs), where
            assert (mine["blame"], mine["detail"]) == (theirs["blame"], theirs["detail"]), where
            if doors == TOLD:
                assert shown(mine) == shown(theirs), where


def test_every_door_tells_the_user_the_same(played: Played) -> None:
    """Its instructions, what the agent said, what its own tools answered: the last request to the simulator."""
    first, *others = played.records
    for door in others:
        for case in played.cases:
            mine, theirs = (told_to_user(played.records[name][case.key]) for name in (door, first))
            assert mine == theirs, f"{case.kind}, {case.domain}/{case.task_id} ({case.key}): {door}, {first}"


def _said(record: dict[str, Any]) -> list[dict[str, Any]]:
    """An empty text beside calls is none: clients spell it either way."""
    return [
        {**message, "content": message["content"] or None} if message.get("tool_calls") else message
        for message in renamed(record["messages"])
    ]
