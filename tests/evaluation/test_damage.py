"""Damaged files in an evaluation's folder and in the cache: told once, with the remedy, and never the end of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.compare import compare
from tau2_slime.evaluation.plan.datasets import default_plan
from tau2_slime.evaluation.report.markdown import render
from tau2_slime.evaluation.runner.budget import Budget, Ticket
from tau2_slime.evaluation.statistics.baselines import NOTHING, TRANSFER, score_baselines
from tau2_slime.evaluation.statistics.summary import read_folder
from tests.evaluation.folders import write_folder

DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"3",
    b'{"mock/base/task_0": 1}',
    b'{"mock/base/task_0": {"do_nothing": "x"}}',
    b"\xff\xfe",
]


def solved(dataset: str, task: int, attempt: int) -> float:
    return 1.0


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_baselines_are_told_and_the_report_stands(tmp_path: Path, content: bytes) -> None:
    folder = write_folder(tmp_path / "run", solved)
    (folder / "baselines.json").write_bytes(content)
    summary = read_folder(folder)
    (note,) = summary.notes
    assert str(folder / "baselines.json") in note
    assert "run the evaluation again, or delete the file" in note
    assert summary.overall.baselines == {NOTHING: None, TRANSFER: None}
    assert render(summary).count(note) == 1
    assert f"the second run: {note}" in compare(read_folder(write_folder(tmp_path / "other", solved)), summary).notes


def test_an_unreadable_baselines_file_is_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", solved)
    (folder / "baselines.json").mkdir()
    assert "Is a directory" in read_folder(folder).notes[0]


def test_baselines_that_were_not_scored_are_no_damage(tmp_path: Path) -> None:
    assert read_folder(write_folder(tmp_path / "run", solved)).notes == []


def test_whole_baselines_are_shown(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", solved, tasks=2)
    rewards = {"mock/base/task_0": {NOTHING: 1.0}, "mock/base/task_1": {NOTHING: 0, TRANSFER: None}}
    (folder / "baselines.json").write_text(json.dumps(rewards))
    summary = read_folder(folder)
    assert summary.notes == []
    assert summary.overall.baselines == {NOTHING: 0.5, TRANSFER: None}
    more = write_folder(tmp_path / "more", solved, tasks=3)
    (more / "baselines.json").write_text(json.dumps(rewards))
    assert read_folder(more).overall.baselines == {NOTHING: None, TRANSFER: None}, "one task's is not known"


ITEMS = default_plan(["mock"], ["scripted"], split="base", tasks=2, attempts=1).datasets[0].items


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"x": "y"}', b"\xff"])
async def test_a_damaged_cache_is_told_once_and_scored_again(tmp_path: Path, content: bytes) -> None:
    whole = await score_baselines(ITEMS, cache=tmp_path)
    (file,) = tmp_path.glob("*.json")  # noqa: ASYNC240
    remembered = file.read_bytes()
    file.write_bytes(content)
    told: list[str] = []
    assert await score_baselines(ITEMS, cache=tmp_path, tell=told.append) == whole
    (sentence,) = told
    assert str(file) in sentence
    assert "delete the file" in sentence
    assert file.read_bytes() == remembered


async def test_a_cache_that_cannot_be_written_is_told_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told: list[str] = []
    known = await score_baselines(ITEMS, cache=tmp_path / "file", tell=told.append)
    assert len(known) == 2
    assert any("cannot be written" in sentence for sentence in told)


def test_damaged_costs_are_told_and_the_others_count(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", solved)
    whole = {"role": "user", "model": "m", "cost": 0.5, "prompt_tokens": 7, "reply_tokens": 3}
    lines = [
        json.dumps(whole),
        '{"role": "user"}',
        "[]",
        json.dumps({**whole, "cost": "x"}),
        json.dumps(whole),
        "\xff",
        '{"ro',
    ]
    content = "\n".join(lines).encode("latin-1")
    (folder / "costs.jsonl").write_bytes(content)
    summary = read_folder(folder)
    bill = summary.bills["user", "m"]
    assert (bill.calls, bill.cost, bill.prompt_tokens) == (2, 1.0, 14)
    (note,) = summary.notes
    assert note.startswith(f"{folder / 'costs.jsonl'}: 5 lines are damaged")
    assert (folder / "costs.jsonl").read_bytes() == content  # who reads does not write


def test_after_a_line_that_a_kill_cut_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "costs.jsonl"
    path.write_bytes(b'{"role": "us')
    budget = Budget(path)
    for _ in range(2):
        budget.settle(Ticket("user", "m", 0.0, own=True), None)
    assert Budget(path).bills["user", "m"].calls == 2
    assert Budget(path).damaged == 1
    assert Budget(path).notes == [f"{path}: 1 line is damaged: the cost of that call is missing from the total"]


def test_costs_that_cannot_be_read_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "costs.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"costs.jsonl cannot be read \(Is a directory\)"):
        Budget(tmp_path / "costs.jsonl", limit=1.0)


def test_damaged_records_are_told(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", solved, tasks=2, attempts=2)
    records = (folder / "simulations.jsonl").read_text().splitlines()
    without_reward = json.dumps({**json.loads(records[1]), "reward": None})
    (folder / "simulations.jsonl").write_text("\n".join([records[0], without_reward, records[2][:50], records[3]]))
    summary = read_folder(folder)
    (note,) = summary.notes
    assert note.startswith(f"{folder / 'simulations.jsonl'}: 2 lines are damaged and left out")
    assert (summary.overall.played, summary.overall.planned) == (2, 4)
