"""The generator: every task pays, nothing depends on interruptions, nobody of the test split appears."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.policy_rules.stated import stated_in, text_of
from tau2_slime.synth import report
from tau2_slime.synth.gates.held_out import composition, held_out
from tau2_slime.synth.generate import Plan, run
from tau2_slime.synth.journal import Journal
from tau2_slime.synth.output import add_to_collection, read_collection, write_all
from tau2_slime.synth.proposal import WRITES
from tau2_slime.synth.report import distinct_n
from tau2_slime.synth.sampling import telecom
from tau2_slime.synth.workers import workers
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import domains, tau2_compat

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


def test_the_report_compares_equally_many_texts_and_shows_tasks_from_all_over(tmp_path: Path) -> None:
    rows = made(tmp_path, "mock") + made(tmp_path / "t", "telecom")
    shown = [row["key"][0] for row in report.examples(rows)]
    assert set(shown) == {"mock", "telecom"}
    found = report.summary("telecom", rows[-2:])
    train = domains.tasks("telecom", "train")
    texts = [text_of(train[0]), text_of(train[len(train) // 2])]
    assert found["measures"]["official train"]["distinct_3"] == pytest.approx(distinct_n(texts), abs=1e-4)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    made(tmp_path, "mock")
    journal = tmp_path / "journal.jsonl"
    whole = journal.read_bytes()
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        made(tmp_path, "mock")
        assert journal.read_bytes() == whole


def test_worker_processes_make_the_same_bytes(tmp_path: Path) -> None:
    plans = [Plan("retail", "easy", 5, 5), Plan("mock", "easy", 60, 5)]  # among 60 of mock some are alike
    made = {}
    for count in (1, 2):
        journal = Journal(tmp_path / f"{count}.jsonl")
        with workers(count) as shared:
            assert (shared is None) == (count == 1 or (os.cpu_count() or 1) < 2)
            run(plans, journal, workers=shared)
        journal.close()
        made[count] = (tmp_path / f"{count}.jsonl").read_bytes()
    assert made[1] == made[2]
    assert b'"G16"' in made[1]


def test_telecom_texts_vary_as_those_of_other_domains_and_say_what_matters() -> None:
    made = [telecom.propose(random.Random(n), telecom.Deck("medium", "test", 2), slot=n, first=True) for n in range(50)]
    tasks = [proposal.task("t") for proposal in made if proposal is not None]
    texts = [text_of(task) for task in tasks]
    assert distinct_n(texts) >= 0.35
    assert distinct_n([text_of(task) for task in domains.tasks("telecom", "train")][:50]) < 0.1
    for proposal, text in zip(made, texts, strict=True):
        assert proposal is not None
        assert not set("[]{}|") & set(text)
        if proposal.stated.refuel_gb is not None:
            assert stated_in("telecom", text).refuel_gb == proposal.stated.refuel_gb
        if proposal.intents[0].kind == "slow_mobile_data":
            assert text.count("excellent") >= 2  # what is wished, and when it is resolved


def test_telecom_customers_differ_in_line_plan_place_and_amount(tmp_path: Path) -> None:
    made = [telecom.propose(random.Random(n), telecom.Deck("medium", "test", 1), slot=n, first=True) for n in range(40)]
    rows = [proposal.task_row("t") for proposal in made if proposal is not None]
    assert len(rows) == 40
    text = json.dumps(rows)
    assert not [old for old in ("C1001", "L1002", "John Smith", "555-123-2002") if old in text]
    data = [row["initial_state"]["initialization_data"]["agent_data"] for row in rows]
    customers = [
        next(c for c in d["customers"] if c["customer_id"] == p.user) for d, p in zip(data, made, strict=True) if p
    ]
    lines = [
        next(n for n in d["lines"] if n["phone_number"] == c["phone_number"])
        for d, c in zip(data, customers, strict=True)
    ]
    assert {line["plan_id"] for line in lines} == {"P1001", "P1002", "P1004"}
    assert len({row["user_scenario"]["persona"] for row in rows}) == 3
    bought = {
        a["arguments"]["gb_amount"]
        for r in rows
        for a in r["evaluation_criteria"]["actions"]
        if a["name"] == "refuel_data"
    }
    assert bought == {0.5, 1.0, 1.5, 2.0}
    puzzles = {(composition(tau2_compat.load().Task.model_validate(r)), r["user_scenario"]["persona"]) for r in rows}
    assert len(puzzles) == 40


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


def test_another_hold_out_or_mix_makes_tasks_of_other_names_and_goes_on_elsewhere(tmp_path: Path) -> None:
    plans = [
        Plan("mock", "easy", 1, 3, hold, weights)
        for hold, weights in (("test", {}), ("none", {}), ("test", {"finish": 4}))
    ]
    collection = tmp_path / "all.json"
    for number, plan in enumerate(plans):
        journal = Journal(tmp_path / str(number) / "journal.jsonl")
        assert add_to_collection(collection, run([plan], journal)) == number + 1
        journal.close()
    journal = Journal(tmp_path / "0" / "journal.jsonl")
    with pytest.raises(ConfigError, match="another --hold-out"):
        run([plans[1]], journal)
    journal.close()


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
    assert not (tmp_path / "mock_tasks.json").exists()
    (tmp_path / "two").mkdir()
    write_all(tmp_path / "two", [*rows, *made(tmp_path / "other", "retail")])
    both = json.loads((tmp_path / "two" / "tasks.json").read_text(encoding="utf-8"))
    parts = [json.loads((tmp_path / "two" / f"{name}_tasks.json").read_text()) for name in ("mock", "retail")]
    assert parts[0] == tasks and [*parts[0], *parts[1]] == both


def test_a_kind_that_the_database_has_no_room_for_ends() -> None:
    journal = Journal(Path("/dev/null"))
    assert run([Plan("mock", "hard", 2, 0)], journal) == []


@pytest.mark.parametrize(("domain", "difficulty"), [("retial", "easy"), ("retail", "extreme")])
def test_a_misspelt_plan_is_one_clear_error(domain: str, difficulty: str) -> None:
    with pytest.raises(ConfigError, match=r"synth makes tasks for|is unknown"):
        Plan(domain, difficulty, 1, 0).check()
