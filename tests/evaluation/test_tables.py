"""The score table, cell by cell, for results that can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tau2_slime.evaluation.report.compliance import compliance_table
from tau2_slime.evaluation.report.output import summary_json
from tau2_slime.evaluation.report.table import Table
from tau2_slime.evaluation.report.tables import (
    all_tables,
    cost_table,
    ending_table,
    length_table,
    noise_words,
    pass_table,
    reason_table,
    score_table,
    tool_table,
    unearned_table,
    user_table,
)
from tau2_slime.evaluation.statistics.baselines import NOTHING, TRANSFER
from tau2_slime.evaluation.statistics.summary import Summary, read_folder
from tau2_slime.policy_rules import retail
from tests.evaluation.folders import write_folder

USERS = {"one": "user/one", "two": "user/two"}


def reward(dataset: str, task: int, attempt: int) -> float | None:
    """Task 0 always, task 1 in its first attempt, task 2 never; of dataset two the last attempt of task 2 is excluded."""
    if dataset == "two" and (task, attempt) == (2, 1):
        return None
    return float(task == 0 or (task == 1 and attempt == 0))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    folder = write_folder(tmp_path_factory.mktemp("run") / "x", reward, datasets=USERS, tasks=3, attempts=2)
    known = {f"mock/base/task_{i}": {NOTHING: float(i == 0), **({TRANSFER: 0} if i == 0 else {})} for i in range(3)}
    (folder / "baselines.json").write_text(json.dumps(known))
    return read_folder(folder)


def cells(table: Table, row: int) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


def test_the_whole_score_table(summary: Summary) -> None:
    table = score_table(summary)
    assert [row[0] for row in table.rows] == ["one", "two", "user: user/one", "user: user/two", "overall: all tasks"]
    assert cells(table, 0) == {
        "": "one",
        "tasks": "3",
        "pass^1": "0.500",
        "95% interval": table.rows[0][3],
        "± se": "0.289",  # of (1, 1/2, 0): 1/2 over the root of 3
        "pass^2": "0.333",
        "pass@2": "0.667",
        "excl.": "0",
        "if failures": "0.500",
        "nothing": "0.333",
        "transfer": "0.000",
    }
    low, high = table.rows[0][3].split(" to ")
    assert float(low) < 0.5 < float(high)
    two = cells(table, 1)
    assert (two["pass^1"], two["pass^2"], two["pass@2"], two["excl."], two["if failures"]) == (
        *("0.500", "0.500*", "1.000*"),  # without task 2
        *("1", "0.500"),
    )
    assert "*: some tasks have fewer usable attempts than k" in table.note
    assert table.emphasised == {4}


def test_the_brief_score_table(summary: Summary) -> None:
    table = score_table(summary, brief=True)
    assert list(table.columns) == [
        *("", "tasks", "pass^1", "95%", "pass^2", "pass@2", "excl.", "if failures", "nothing", "transfer")
    ]
    low, high = table.rows[0][3].split("-")
    assert (len(low), len(high)) == (4, 4)


def test_without_exclusions_the_brief_table_has_one_number_less(tmp_path: Path) -> None:
    table = score_table(read_folder(write_folder(tmp_path / "x", lambda d, t, i: 1.0, attempts=1)), brief=True)
    assert list(table.columns) == ["", "tasks", "pass^1", "95%", "excl.", "nothing", "transfer"]
    assert table.rows[0][-2:] == ["-", "-"]
    assert "not known how much a repetition" in table.note


def test_of_four_attempts_the_brief_table_shows_the_largest_k(tmp_path: Path) -> None:
    folder = read_folder(write_folder(tmp_path / "x", lambda d, t, i: float(i == 0), attempts=4))
    assert [c for c in score_table(folder, brief=True).columns if "^" in c or "@" in c] == [
        "pass^1",
        "pass^4",
        "pass@4",
    ]
    assert [c for c in score_table(folder).columns if "^" in c or "@" in c] == [
        *(f"pass^{k}" for k in range(1, 5)),
        "pass@4",
    ]


def test_every_k_with_both_meanings(summary: Summary) -> None:
    rows = pass_table(summary).rows
    assert [(row[0], row[1], row[2], row[4], row[6], row[7]) for row in rows[:4]] == [
        ("one", "1", "0.500", "0.500", "0.667", "3"),
        ("", "2", "0.333", "0.667", "0.667", "3"),
        ("two", "1", "0.500", "0.500", "0.667", "3"),
        ("", "2", "0.500*", "1.000*", "1.000", "2"),
    ]


def test_the_other_tables(summary: Summary) -> None:
    assert ending_table(summary).rows == [
        ["excluded", "user_error", "user", "1", "8.3%"],
        ["failed", "user_stop", "agent", "5", "41.7%"],
        ["solved", "user_stop", "agent", "6", "50.0%"],
    ]
    reasons = reason_table(summary)
    assert reasons is not None
    assert reasons.rows == [["user: user model user/one: no answer within 120 s (5 tries)", "1"]]
    tools = tool_table(summary)
    assert tools is not None
    assert tools.rows == [["find_user", "12", "12", "100.0%", "0"]]
    lengths = ["2.0", "2.0", "1.0", "150.0", "4,000.0", "700.0"]
    assert length_table(summary).rows == [["one", *lengths], ["two", *lengths]]
    assert cost_table(summary) is None
    assert user_table(summary).rows == []
    assert unearned_table(summary) is None
    assert [table.title for table in all_tables(summary)] == [
        *("Scores", "pass^k and pass@k", "How episodes ended", "Excluded episodes", "Tool calls of the policy"),
        "Turns and tokens, mean per episode",
    ]


def test_noise_in_words(summary: Summary, tmp_path: Path) -> None:
    assert "would differ by up to" in noise_words(summary.overall.scores)
    alike = read_folder(write_folder(tmp_path / "x", lambda d, t, i: float(t == 0)))
    assert noise_words(alike.overall.scores) == "Noise: none was seen, because the attempts of each task ended alike."


def test_markdown_escapes_what_would_end_a_cell() -> None:
    table = Table("T", ["a", "n"], [["x|y", "1"]], "note")
    assert table.markdown() == "## T\n\n| a | n |\n| --- | ---: |\n| x\\|y | 1 |\n\nnote\n"


def test_what_was_paid_without_work_is_listed(tmp_path: Path) -> None:
    """Of the three attempts that were solved, two called no tool and one of these recited; failures are not looked at."""
    folder = write_folder(tmp_path / "x", lambda dataset, task, attempt: float(task == 0), tasks=2, attempts=3)
    path = folder / "simulations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["telemetry"] = {"unearned/nothing": 1.0, "unearned/transfer": 0.0, "unearned/recitation": 0.0}
        if row["attempt"] == 0:
            row["telemetry"]["unearned/recitation"] = 1.0
        if row["attempt"] == 1:
            row["telemetry"]["unearned/nothing"] = 0.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = read_folder(folder)
    table = unearned_table(summary)
    assert table is not None
    assert table.rows == [["called no tool", "2", "66.7%"], ["recited numbers", "1", "33.3%"]]
    assert table in all_tables(summary)


def test_compliance_is_counted_by_domain_and_rule(tmp_path: Path) -> None:
    """Six attempts in each domain: the excluded one and those without a write are not counted."""
    mock = write_folder(tmp_path / "mock", lambda dataset, task, attempt: 1.0, tasks=1, attempts=1)
    folder = write_folder(
        tmp_path / "x", lambda d, task, attempt: (None, 1.0, 0.0)[attempt], tasks=2, attempts=3, domain="retail"
    )
    counts = {
        (0, 0): {"writes": 9, "broken": 9, "R4": 9},  # excluded
        (0, 1): {"writes": 3, "broken": 1, "R4": 1, "R17": 1},  # solved
        (0, 2): {"writes": 2, "broken": 2, "R4": 2},
        (1, 1): {"writes": 5},
        (1, 2): {},
    }
    path = folder / "simulations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["stats"]["policy"] = counts.get((int(row["task_id"][-1]), row["attempt"]), {})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = read_folder(folder)
    table = compliance_table(summary)
    assert table is not None
    assert table.rows == [
        ["retail", "all", "70.0% of 10 writes break no rule", "2", "66.7%", "1"],
        ["", "R4", retail.rules["R4"].clause, "2", "66.7%", "1"],
        ["", "R17", retail.rules["R17"].clause, "1", "33.3%", "1"],
    ]
    assert table in all_tables(summary)
    assert summary_json(summary)["compliance"][0]["rules"] == {"R4": 2, "R17": 1}
    assert compliance_table(read_folder(mock)) is None, "records of earlier versions do not say it"
