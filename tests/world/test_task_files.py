"""A task file is a split: every form of it, every way in which it can be wrong, and how a setting names it."""

from __future__ import annotations

import copy
import gc
import gzip
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains, task_files
from tau2_slime.world.task_files import TaskFile

ODD_IDS = ("7", "a/b\nc", "😀 #2", "../../x")


@pytest.fixture(scope="module")
def tasks() -> list[dict[str, Any]]:
    found = [task.model_dump(mode="json") for task in domains.tasks("mock", "base")[: len(ODD_IDS)]]
    return [{**task, "id": name} for task, name in zip(found, ODD_IDS, strict=True)]


def lines(tasks: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(task) + "\n" for task in tasks).encode()


FORMS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    "tasks.jsonl": lines,
    "windows.jsonl": lambda t: b"\xef\xbb\xbf" + lines(t).replace(b"\n", b"\r\n\r\n"),
    "without an end.jsonl": lambda t: lines(t).rstrip(),
    "tasks.json": lambda t: json.dumps(t, indent=2, ensure_ascii=False).encode(),
    "as τ² has it.json": lambda t: json.dumps({"version": ["tasks"], "tasks": t}).replace('"version"', '"v"').encode(),
    "list.jsonl": lambda t: json.dumps(t).encode(),
    "lines.json": lambda t: b"\n\n" + lines(t),
    "lines without a suffix": lines,
    "object.jsonl": lambda t: json.dumps({"tasks": t}).encode() + b"\n\n",
    "far.json": lambda t: b" " * (3 << 20) + lines(t).replace(b"\n", b"\n" + b" " * (2 << 20)),
    "lines.json.gz": lambda t: gzip.compress(json.dumps(t).encode()),
    "tasks.jsonl.gz": lambda t: gzip.compress(lines(t)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_tasks(name: str, tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name](tasks))
    split = f"file:{tmp_path / name}"
    found = domains.tasks("mock", split)
    assert [task.model_dump(mode="json") for task in found] == tasks
    assert domains.find_task("mock", split, task_id="😀 #2") is domains.find_task("mock", split, index=2) is found[2]
    with pytest.raises(ConfigError, match=r"no task 'nope' in mock/file:"):
        domains.find_task("mock", split, task_id="nope")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8, unique=True))
def test_any_text_is_an_id(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    base = domains.tasks("mock", "base")[0].model_dump(mode="json")
    path = tmp_path_factory.mktemp("ids") / "t.jsonl"
    path.write_bytes(lines([{**base, "id": name} for name in ids]))
    file = TaskFile(path)
    assert list(file.positions) == ids == [task.id for task in file] and not file.faults


def test_a_task_in_use_is_one_object_and_others_are_let_go(
    tasks: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_files, "_KEPT_BYTES", 1)
    monkeypatch.setattr(task_files, "_KEPT_TASKS", 1)
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines(tasks))
    file = TaskFile(path)
    first, gone = file[0], weakref.ref(file[1])
    assert file[2] and file[0] is first
    gc.collect()
    assert gone() is None


def test_a_change_of_the_file_does_not_reach_a_run_that_has_begun(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines(tasks))
    before = domains.tasks("mock", f"file:{path}")
    path.write_bytes(lines(tasks[::-1]))
    assert [task.id for task in domains.tasks("mock", f"file:{path}")] == [task.id for task in before] == list(ODD_IDS)


def test_a_digest_changes_with_the_task_and_not_with_its_spelling(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    one, other = tmp_path / "a.json", tmp_path / "b.jsonl"
    one.write_text(json.dumps(tasks, indent=3))
    changed = copy.deepcopy(tasks)
    changed[1]["user_scenario"]["instructions"] = "Ask for something else."
    other.write_bytes(lines(changed))
    a, b = TaskFile(one), TaskFile(other)
    assert [name for name in ODD_IDS if a.digest(name) != b.digest(name)] == [ODD_IDS[1]]


# ---- rows that cannot be played ---------------------------------------------------------------------------------------


def gold(**action: Any) -> dict[str, Any]:
    full = {"action_id": "x", "requestor": "assistant", "name": "create_task", "arguments": {}, **action}
    return {"evaluation_criteria": {"actions": [full], "reward_basis": ["DB"]}}


def call(place: str, name: str, **arguments: Any) -> dict[str, Any]:
    one = {"env_type": "assistant", "func_name": name, "arguments": arguments}
    if place == "initialization_actions":
        return {"initial_state": {place: [one]}}
    return {"evaluation_criteria": {place: [one], "reward_basis": ["ENV_ASSERTION"]}}


BAD: dict[str, tuple[Any, str]] = {
    "empty id": ({"id": " "}, "id is empty"),
    "number": ({"id": 7}, "id: Input should be a valid string"),
    "surrogate": ({"id": "\ud800"}, "lone surrogate"),
    "no scenario": ({"user_scenario": None}, "user_scenario"),
    "a Python method": (gold(name="update_db"), "'update_db' is not a tool of the agent"),
    "unknown tool": (gold(name="fly"), "'fly' is not a tool of the agent"),
    "unknown requestor": (gold(requestor="boss"), "requestor"),
    "unknown basis": ({"evaluation_criteria": {"reward_basis": ["LOVE"]}}, "reward_basis.0"),
    "no basis": ({"evaluation_criteria": {"reward_basis": []}}, "every episode would earn 1.0"),
    "no criteria": ({"evaluation_criteria": None}, "every episode would earn 1.0"),
    "no such function": (call("initialization_actions", "nope"), "'nope' is not a function"),
    "private function": (call("initialization_actions", "__init__"), "'__init__' is not a function"),
    "wrong arguments": (call("initialization_actions", "create_task", x=1), "does not take the arguments x"),
    "assertion": (call("env_assertions", "nope"), "'nope' is not a function"),
    "unknown table": ({"initial_state": {"initialization_data": {"agent_data": {"planes": {}}}}}, "no 'planes'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_row_that_cannot_be_played_is_named_with_its_line(
    name: str, tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    change, says = BAD[name]
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines([tasks[0], {**tasks[1], "id": "bad", **change}, tasks[2]]))
    with pytest.raises(ConfigError) as refused:
        domains.tasks("mock", f"file:{path}")
    assert f"{path}: 1 of 3 tasks cannot be played: line 2" in str(refused.value) and says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{oops", "line 2: it is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"x" * 50_000_000 + b'"}', "id: Field required"),
        (b'"\xff"', "not UTF-8"),
        (b"[1]", "it is not a task but list"),
    ],
    ids=["not JSON", "deep", "50 MB", "not UTF-8", "a list"],
)
def test_a_row_that_is_no_task_is_one_short_line(
    text: bytes, says: str, tasks: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines(tasks[:1]) + text + b"\n" + lines(tasks[1:]))
    file = domains.task_file("mock", f"file:{path}")
    assert [task.id for task in file] == list(ODD_IDS), "nothing else is lost"
    (fault,) = file.faults
    assert says in str(fault) and len(str(fault)) < 400


def test_a_second_task_with_an_id_is_named_with_both_lines(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps([tasks[0], tasks[1], tasks[0]], indent=1))
    (fault,) = domains.task_file("mock", f"file:{path}").faults
    assert fault.where.startswith("task 3, line ") and "the id of task 1, line 2" in fault.text
    assert path.read_text().splitlines()[int(fault.where.split()[-1]) - 1].strip() == "{"


def test_of_many_bad_rows_some_are_named_and_all_are_counted(tasks: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"{}\n[]\n" * 500)
    with pytest.raises(ConfigError, match=r"1000 of 1000 tasks cannot be played: line 1: .*; and 995 more") as refused:
        domains.tasks("mock", f"file:{path}")
    assert len(str(refused.value)) < 2000


DAMAGED = {
    "missing": (None, "is missing"),
    "empty": (b"", "holds no task"),
    "blank": (b"\n \n", "holds no task"),
    "cut gzip": (gzip.compress(b'{"id": 1}\n' * 99)[:-9], "damaged or cut short"),
    "damaged gzip": (b"\x1f\x8b\x08\x00" + b"x" * 40, "damaged or cut short"),
    "cut list": (b'[{"id": 1}, {"id"', "task 2, line 1: the list is not JSON from here on"),
    "more": (b'[{"id": 1}]\n{"id": 2}', "line 2: something follows the end of the list"),
    "no comma": (b'[{"id": 1} {"id": 2}]', "a comma or the end of the list must follow"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_cannot_be_read_is_one_clear_error(name: str, tmp_path: Path) -> None:
    content, says = DAMAGED[name]
    path = tmp_path / "t.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=says) as refused:
        domains.tasks("mock", f"file:{path}")
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["/dev/zero", "/dev", "/proc/self/mem"])
def test_what_is_not_a_file_of_tasks_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        domains.tasks("mock", f"file:{path}")


def test_a_file_of_another_kind_shows_none_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("token: sk-very-secret-0123456789\n")
    with pytest.raises(ConfigError) as refused:
        domains.tasks("mock", f"file:{path}")
    assert "very-secret" not in str(refused.value)


# ---- how a setting names a file ------------------------------------------------------------------------------------------


def test_a_relative_path_counts_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Tau2Config.resolve(environ={"TAU2_TASK_SPLIT": "file:a/t.jsonl"}).task_split == f"file:{tmp_path}/a/t.jsonl"


def test_a_name_stands_for_a_file(tmp_path: Path) -> None:
    mapping = {"task_files": {"mine": str(tmp_path / "t.jsonl")}}
    assert Tau2Config.resolve(mapping, {"task_split": "mine"}, {}).task_split == f"file:{tmp_path}/t.jsonl"
    assert Tau2Config.resolve(mapping, {"task_split": "test"}, {}).task_split == "test"


@pytest.mark.parametrize("name", ["train", "test", "base", "file:x", ""])
def test_a_name_cannot_hide_a_split(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a task file"):
        Tau2Config.resolve({"task_files": {name: "t.jsonl"}}, {}, {})
