"""`tau2-slime diagnose` as its users meet it: files in, a table and files out."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tau2_slime.cli.commands import app
from tau2_slime.diagnosis.clusters import by_simulator, clusters_of, compare, of_shared_tasks, steer
from tau2_slime.diagnosis.findings import Diagnosis, Finding, Key, What, Who
from tau2_slime.errors import ConfigError

from .corruptions import labelled, successes
from .plays import Made


def as_results(made: list[Made]) -> dict[str, Any]:
    """τ²'s results with these episodes, all of one domain."""
    trials: dict[str, int] = {}
    runs = []
    for trajectory, _ in made:
        trial = trials.setdefault(trajectory.task_id, 0)
        trials[trajectory.task_id] += 1
        runs.append(
            {
                "id": f"{trajectory.task_id}-{trial}",
                "task_id": trajectory.task_id,
                "trial": trial,
                "termination_reason": trajectory.termination,
                "messages": trajectory.messages,
                "reward_info": trajectory.reward_info,
            }
        )
    return {"info": {"environment_info": {"domain_name": made[0][0].domain}}, "tasks": [], "simulations": runs}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = [*labelled(1, kinds=iter(["wrong_argument.payment", "premature_stop", "missing_action"])), *successes(2)]
    path = tmp_path_factory.mktemp("runs") / "results.json"
    path.write_text(json.dumps(as_results([one for one in made if one[0].domain == "retail"])))
    return path


def test_a_line_for_each_episode_and_a_table(run: Path, tmp_path: Path) -> None:
    lines, steering, old = tmp_path / "diagnosis.jsonl", tmp_path / "steer.json", tmp_path / "old.json"
    arguments = ["diagnose", str(run), "--jsonl", str(lines), "--steer", str(steering), "--output-path", str(old)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    written = json.loads(run.read_text())["simulations"]
    assert [(row["task_id"], row["trial"]) for row in rows] == [(one["task_id"], one["trial"]) for one in written]
    assert [row["what"] for row in rows][:3] == ["wrong_argument", "premature_stop", "missing_action"]
    assert {"run", "domain", "reward", "who", "turn", "clause", "evidence", "also", "sure", "by"} <= rows[0].keys()
    assert "3 failures" in result.output and "agent 2 (67%)" in result.output
    weights = [one["weight"] for one in json.loads(steering.read_text())["clusters"]]
    assert sum(weights) == pytest.approx(1)
    assert [one["author"] for one in json.loads(old.read_text())["fault_assignment_analysis"]] == [
        "agent",
        "user",
        "agent",
    ]


def test_the_earlier_tools_flags(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    flags = ["--env", "retail", "--results-path", str(run), "--output-path", str(old), "--max-num-failed-results", "1"]
    result = CliRunner().invoke(app, ["diagnose", *flags])
    assert result.exit_code == 0, result.output
    assert len(json.loads(old.read_text())["fault_assignment_analysis"]) == 1


def test_the_page_shows_each_failure_with_its_diagnosis(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["diagnose", str(run), "--html", str(page)])
    assert result.exit_code == 0, result.output
    (packed,) = re.findall(r'id="episodes-\d+"[^>]*>([^<]+)<', page.read_text())
    shown = [one["diagnosis"] for one in json.loads(gzip.decompress(base64.b64decode(packed)))]
    assert None not in shown
    said = [(one["who"], one["what"], one.get("detail")) for one in shown]
    assert ("agent", "wrong_argument", "payment") in said
    assert ("user", "premature_stop", None) in said


def test_the_shares_are_a_metric_of_ones_own() -> None:
    from tau2_slime.diagnosis.metric import shares
    from tau2_slime.episode.history import load_messages
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.outcome import Blame, Termination

    trajectory, label = labelled(1, kinds=iter(["wrong_argument.payment"]))[0]
    result = InteractionResult(
        *(trajectory.domain, "base", trajectory.task_id, "llm", "scripted"),
        termination=Termination.USER_STOP,
        blame=Blame.AGENT,
        reward=trajectory.reward,
        messages=load_messages(trajectory.messages),
    )
    numbers = shares(result)
    assert {name for name, value in numbers.items() if value} == {"failed_by/agent", f"failed_by/agent/{label.what}"}
    result.reward = 1.0
    assert not any(shares(result).values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a RUN"),
        (["RUN", "--who", "nobody"], "--who nobody: give one of"),
        (["RUN", "--what", "wrong"], "--what wrong: give one of"),
        (["RUN", "--domain", "mars"], "--domain mars: no episode of"),
    ],
)
def test_what_was_typed_wrong_is_named(run: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["diagnose", *(str(run) if one == "RUN" else one for one in arguments)])
    assert words in str(result.exception)


# ---- over a run --------------------------------------------------------------------------------------------------------


def one(task: str, trial: int, what: What = What.NONE, who: Who = Who.AGENT, tool: str = "") -> Diagnosis:
    failed = what is not What.NONE
    finding = Finding(who if failed else Who.NONE, what, 1, (), 0.9, tool=tool)
    return Diagnosis(Key("run", "retail", task, str(trial)), 0.0 if failed else 1.0, finding)


def no_interval(domains: object, tasks: object, values: object) -> tuple[float, float]:
    return 0.0, 1.0


def test_clusters_say_whether_another_attempt_does_it_right() -> None:
    run = [
        one("1", 0, What.WRONG_TOOL, tool="a"),
        one("1", 1),
        one("2", 0, What.WRONG_TOOL, tool="a"),
        one("3", 0, What.LEAK, Who.USER),
    ]
    largest, other = clusters_of(run, no_interval)
    assert (largest.kind.what, largest.count, largest.share) == ("wrong_tool", 2, 2 / 3)
    assert (largest.unreliable, largest.missing) == (("1",), ("2",))
    assert other.kind.who == "user"


def test_users_faults_steer_nothing_and_held_out_tasks_are_not_named() -> None:
    run = [one("1", 0, What.WRONG_TOOL), one("2", 0, What.WRONG_TOOL), one("3", 0, What.LEAK, Who.USER)]
    content = json.loads(json.dumps(steer(clusters_of(run, no_interval), lambda domain, task: task == "2")))
    assert [(c["who"], c["count"], c["missing"]) for c in content["clusters"]] == [("agent", 2, ["1"])]
    assert [(c["who"], [e["task_id"] for e in c["exclude"]]) for c in content["repair"]] == [("user", ["3"])]


def test_the_simulator_that_spoils_most_comes_first() -> None:
    run = [
        one("1", 0, What.WRONG_TOOL),
        one("2", 0, What.LEAK, Who.USER),
        one("3", 0),
        one("1", 1, What.LEAK, Who.USER),
    ]
    for each, model in zip(run, ("good", "bad", "bad", "bad"), strict=True):
        each.user_model = model
    assert [row[:4] for row in by_simulator(run, no_interval)] == [("bad", 3, 2, 2), ("good", 1, 1, 0)]
    content = json.loads(json.dumps(steer(clusters_of(run, no_interval), lambda domain, task: False)))
    assert [each["simulators"] for each in content["repair"]] == [{"bad": 2}]


def test_two_runs_side_by_side() -> None:
    before = [one("1", 0, What.WRONG_TOOL), one("2", 0), one("3", 0, What.LEAK, Who.USER), one("9", 0, What.OTHER)]
    after = [one("1", 0), one("2", 0, What.MISSING_ACTION), one("3", 0, What.LEAK, Who.USER)]
    changes = {change.kind[2]: change for change in compare(before, after)}
    assert changes["wrong_tool"][1:] == (1, 0, ("1",), ())
    assert changes["missing_action"][1:] == (0, 1, (), ("2",))
    assert changes["leak"][1:] == (1, 1, (), ())
    assert "other" not in changes  # its task is not in both
    assert [len(run) for run in of_shared_tasks(before, after)] == [3, 3]


def test_two_outputs_never_are_one_file_and_none_is_an_input(run: Path, tmp_path: Path) -> None:
    for options in (["--jsonl", "a", "--steer", "a"], ["--jsonl", str(run)], ["--html", str(tmp_path)]):
        before = run.read_bytes()
        error = CliRunner().invoke(app, ["diagnose", str(run), *options]).exception
        assert isinstance(error, ConfigError), options
        assert run.read_bytes() == before


def test_a_part_of_a_run_is_no_change_and_a_limit_changes_no_rate(run: Path, tmp_path: Path) -> None:
    results = json.loads(run.read_text())
    failed = {one["task_id"] for one in results["simulations"] if one["reward_info"]["reward"] == 0}
    results["simulations"] = [one for one in results["simulations"] if one["task_id"] in failed]
    assert len(failed) > 1
    part = tmp_path / "part.json"
    part.write_text(json.dumps(results))
    for limit in ((), ("-n", "1")):
        said = CliRunner().invoke(app, ["diagnose", str(run), str(part), *limit]).output
        shares = re.findall(r"\((\d+\.\d%)\)", next(line for line in said.splitlines() if "tasks of both" in line))
        assert len(shares) == 2 and len({*shares}) == 1, said
