"""The generator: every task pays, nothing depends on interruptions, nobody of the test split appears."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.synth.gates.held_out import held_out
from tau2_slime.synth.generate import Plan, run
from tau2_slime.synth.journal import Journal
from tau2_slime.synth.output import add_to_collection, read_collection, write_all
from tau2_slime.synth.proposal import WRITES
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import tau2_compat

PLANS = {
    "retail": [Plan("retail", "easy", 2, 3), Plan("retail", "medium", 3, 3)],
    "airline": [Plan("airline", "easy", 2, 3), Plan("airline", "medium", 3, 3)],
    "telecom": [Plan("telecom", "medium", 2, 3)],
    "mock": [Plan("mock", "easy", 3, 3)],
}


def made(folder: Path, domain: str) -> list[dict[str, Any]]:
    journal = Journal(folder / "journal.jsonl")
    try:
        return run(PLANS[domain], journal)
    finally:
        journal.close()


@pytest.mark.parametrize("domain", PLANS)
def test_every_task_pays_its_gold_and_nothing_else_in_tau2s_own_evaluator(domain: str, tmp_path: Path) -> None:
    rows = made(tmp_path, domain)
    accepted = [row for row in rows if row["accepted"]]
    assert len(accepted) == sum(plan.count for plan in PLANS[domain])
    assert not {row["user"] for row in accepted} & held_out(domain, "test").users
    for row in accepted:
        task = tau2_compat.load().Task.model_validate(row["task"])
        least, most = WRITES[row["key"][1]]
        assert least <= row["writes"] <= most
        paid = paid_without_a_model(Tau2Config(domain=domain), task, unmodified=True)
        assert paid[:3] == (1.0, 0.0, 0.0)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    made(tmp_path, "mock")
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        made(tmp_path, "mock")
        assert journal.read_bytes() == whole


def test_a_collection_accumulates_and_holds_each_task_once(tmp_path: Path) -> None:
    rows, path = made(tmp_path, "mock"), tmp_path / "all.json"
    assert add_to_collection(path, rows) == 3
    assert add_to_collection(path, rows) == 3
    again = Journal(tmp_path / "second.jsonl")
    more = run([Plan("mock", "easy", 3, 4)], again, seen=read_collection(path))
    again.close()
    assert add_to_collection(path, more) == 6
    titles = [row["evaluation_criteria"]["actions"][0]["arguments"]["title"] for row in read_collection(path)]
    assert len(set(titles)) == 6


def test_the_folder_holds_what_the_guide_names(tmp_path: Path) -> None:
    rows = made(tmp_path, "mock")
    write_all(tmp_path, rows)
    tasks = json.loads((tmp_path / "tasks.json").read_text(encoding="utf-8"))
    split = json.loads((tmp_path / "split_tasks.json").read_text(encoding="utf-8"))
    assert sorted(split["train"] + split["dev"]) == sorted(task["id"] for task in tasks)
    lines = (tmp_path / "provenance.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [task["id"] for task in tasks]
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "create_task" in html
    assert "<svg" in html
    assert "# Synthetic tasks" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_kind_that_the_database_has_no_room_for_ends() -> None:
    journal = Journal(Path("/dev/null"))
    assert run([Plan("mock", "hard", 2, 0)], journal) == []


@pytest.mark.parametrize(("domain", "difficulty"), [("retial", "easy"), ("retail", "extreme")])
def test_a_misspelt_plan_is_one_clear_error(domain: str, difficulty: str) -> None:
    with pytest.raises(ConfigError, match=r"synth makes tasks for|is unknown"):
        Plan(domain, difficulty, 1, 0).check()
