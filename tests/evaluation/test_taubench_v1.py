"""Recorded tau-bench v1 results in τ²: runs made by hand, and the public ones where their file is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tau2_slime.cli.commands import app
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.statistics.estimates import scores
from tau2_slime.evaluation.taubench_v1 import command
from tau2_slime.evaluation.taubench_v1.recorded import read_results
from tau2_slime.evaluation.taubench_v1.replay import Replayed, domain_of, replay, tau2_tasks
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, tau2_compat
from tests.world.twins import Player, gold_calls

Messages = list[dict[str, Any]]


# ---- runs made by hand, out of τ²'s own tasks ------------------------------------------------------------------------


def writing_task(domain: str, *, outputs: bool = False) -> Any:
    """A task of ``domain`` whose gold actions run without an error and change the database."""
    for task in domains.tasks(domain, "base"):
        criteria = task.evaluation_criteria
        if bool(criteria.communicate_info) is not outputs:
            continue
        player = Player(domain, task)
        before = player.hashes()
        if not any(player.call(call).error for call in gold_calls(task)) and player.hashes() != before:
            return task
    raise AssertionError(f"{domain} has no such task")


def v1_task(task: Any) -> dict[str, Any]:
    criteria = task.evaluation_criteria
    return {
        "user_id": "somebody",
        "instruction": str(task.user_scenario.instructions),
        "actions": [{"name": a.name, "kwargs": a.arguments} for a in criteria.actions],
        "outputs": criteria.communicate_info or [],
    }


def said(text: str) -> Messages:
    return [{"role": "assistant", "content": text}]


def called(name: str, arguments: dict[str, Any], answer: str = "{}", content: str | None = None) -> Messages:
    """As a tool-calling agent records it."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    calls = [{"id": f"call_{name}", "type": "function", "function": function}]
    return [
        {"role": "assistant", "content": content, "tool_calls": calls},
        {"role": "tool", "tool_call_id": f"call_{name}", "name": name, "content": answer},
    ]


def written(name: str, arguments: dict[str, Any], answer: str = "{}") -> Messages:
    """As a react agent records it."""
    action = json.dumps({"name": name, "arguments": arguments})
    heard = answer if name == "respond" else f"API output: {answer}"
    return [
        {"role": "assistant", "content": f"Thought:\nI know: 4242.\nAction:\n{action}"},
        {"role": "user", "content": heard},
    ]


def run_of(
    task: Any, body: Messages, reward: float, *, number: int = 0, trial: int = 0, stop: bool = True
) -> dict[str, Any]:
    traj = [{"role": "system", "content": "wiki"}, {"role": "user", "content": "Hello."}, *body]
    if stop:
        traj += [{"role": "user", "content": "Thanks. ###STOP###"}]
    return {"task_id": number, "trial": trial, "reward": reward, "info": {"task": v1_task(task)}, "traj": traj}


def gold(task: Any, last: str | None = None) -> Messages:
    body = [m for call in gold_calls(task) for m in called(call.name, call.arguments)]
    info = task.evaluation_criteria.communicate_info or []
    return [*body, *said(last if last is not None else " ".join(["Done.", *info]))]


def save(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def played(path: Path) -> list[Replayed]:
    runs = read_results(path)
    domain = domain_of(runs)
    tasks = tau2_tasks(runs, domain)
    return [replay(run, tasks.get(run.task_id), domain) for run in runs]


@pytest.mark.parametrize("domain", ["airline", "retail"])
def test_what_was_done_decides_and_not_what_v1_noted(domain: str, tmp_path: Path) -> None:
    task = writing_task(domain)
    file = save(
        tmp_path / "runs.json",
        [
            run_of(task, gold(task), 1.0),
            run_of(task, said("No."), 0.0, trial=1),
            run_of(task, said("No."), 1.0, trial=2),  # whatever v1 thought
        ],
    )
    found = played(file)
    assert domain_of([r.run for r in found]) == domain
    assert [r.reward for r in found] == [1.0, 0.0, 0.0]
    assert [r.agrees for r in found] == [True, True, False]
    assert {r.termination for r in found} == {Termination.USER_STOP}


def test_outputs_have_to_be_said(tmp_path: Path) -> None:
    task = writing_task("retail", outputs=True)
    file = save(tmp_path / "r.json", [run_of(task, gold(task), 1.0), run_of(task, gold(task, "Done."), 0.0, trial=1)])
    assert [r.reward for r in played(file)] == [1.0, 0.0]


def test_how_v1_ended_a_run(tmp_path: Path) -> None:
    task = writing_task("airline")
    transfer = called("transfer_to_human_agents", {"summary": "."}, "Transfer successful")
    broken = {"task_id": 0, "trial": 3, "reward": 0.0, "info": {"error": "rate limit"}, "traj": []}
    file = save(
        tmp_path / "r.json",
        [
            run_of(task, [*gold(task), *transfer], 1.0, stop=False),
            run_of(task, gold(task), 0.0, trial=1, stop=False),
            run_of(task, gold(task)[:-1], 0.0, trial=2, stop=False),
            broken,
        ],
    )
    found = played(file)
    assert [str(r.termination) for r in found] == ["agent_stop", "max_steps", "max_steps", "infrastructure_error"]
    assert [r.reward for r in found] == [1.0, 0.0, 0.0, None]
    assert "1 raised in v1 and have no trajectory" in " ".join(command.sentences(found, "airline"))


def test_thinking_never_reaches_tau2(tmp_path: Path) -> None:
    """Neither as a call, nor as text that could earn the reward of having been said."""
    task = writing_task("retail", outputs=True)
    info = task.evaluation_criteria.communicate_info
    thought = called("think", {"thought": " ".join(info)}, "", content=" ".join(info))
    file = save(tmp_path / "r.json", [run_of(task, [*thought, *gold(task, "Done.")], 0.0)])
    (found,) = played(file)
    assert (found.reward, found.thoughts, found.flipped) == (0.0, 1, 0)
    assert "think" not in [call.name for m in found.messages for call in getattr(m, "tool_calls", None) or ()]


def test_a_react_agent_is_read_as_the_same_run(tmp_path: Path) -> None:
    task = writing_task("airline")
    calls = [m for call in gold_calls(task) for m in written(call.name, call.arguments)]
    react = [*calls, *written("respond", {"content": "Done."}, "Thanks. ###STOP###")]
    unparsed = [*calls, {"role": "assistant", "content": "Thought:\nSo.\nAction:\nDone."}]
    file = save(
        tmp_path / "r.json",
        [
            run_of(task, gold(task, "Done."), 1.0),
            run_of(task, react, 1.0, trial=1, stop=False),
            run_of(task, unparsed, 1.0, trial=2),
        ],
    )
    found = played(file)

    def heard(r: Replayed) -> list[Any]:
        return [
            (m.role, m.content, [(c.name, c.arguments) for c in getattr(m, "tool_calls", None) or ()])
            for m in r.messages
        ]

    assert heard(found[0]) == heard(found[1]) == heard(found[2])
    assert [r.reward for r in found] == [1.0, 1.0, 1.0]
    assert "4242" not in str(heard(found[1]))


def test_errors_that_only_one_of_the_two_has_are_counted(tmp_path: Path) -> None:
    task = writing_task("airline")
    body = [
        *called("get_user_details", {"user_id": "nobody"}, "Error: user not found"),
        *called("get_user_details", {"user_id": "nobody"}, '{"name": "found in v1"}'),
    ]
    (found,) = played(save(tmp_path / "r.json", [run_of(task, [*body, *gold(task)], 1.0)]))
    assert (found.flipped, found.answers) == (1, 2 + len(gold_calls(task)))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_compares_and_writes_what_tau2_reads(tmp_path: Path) -> None:
    """Both files load with τ²'s own models, and its own evaluator pays the written simulations the same."""
    first, second = writing_task("airline"), domains.tasks("airline", "base")[1]
    runs = [
        run_of(first, gold(first) if trial % 2 else said("No."), float(trial % 2), trial=trial) for trial in range(4)
    ]
    runs += [run_of(second, gold(second), 0.0, number=7, trial=trial) for trial in range(4)]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["convert-v1", str(save(tmp_path / "gpt.json", runs)), "--output-dir", str(out)])
    assert done.exit_code == 0, done.output
    assert "8 runs of 2 airline tasks" in done.output and "recorded in 4 of 8" in done.output
    assert "Runs that τ² pays otherwise" in done.output and "COMMUNICATE 1" in done.output

    t = tau2_compat.load()
    tasks = {
        task.id: task for task in (t.Task.model_validate(raw) for raw in json.loads((out / "tasks.json").read_text()))
    }
    assert set(tasks) == {"v1_0", "v1_7"}
    results = t.Results.model_validate_json((out / "simulations.json").read_text())
    assert [(s.task_id, s.trial) for s in results.simulations] == [(f"v1_{n}", i) for n in (0, 7) for i in range(4)]
    assert results.info.num_trials == 4
    for simulation in results.simulations[:2]:
        arguments = tau2_compat.evaluation_arguments(
            simulation, tasks[simulation.task_id], domain="airline", solo=False, env_kwargs={}, judge=False
        )
        assert t.evaluate_simulation(**arguments).reward == simulation.reward_info.reward
    inspected = CliRunner().invoke(app, ["inspect", str(out / "simulations.json")])
    assert inspected.exit_code == 0 and "v1_7#3" in inspected.output


def test_pass_hat_k_counts_a_run_that_raised_for_v1_only(tmp_path: Path) -> None:
    task = writing_task("airline")
    runs = [
        run_of(task, gold(task), 1.0),
        {"task_id": 0, "trial": 1, "reward": 0.0, "info": {"error": "x"}, "traj": []},
    ]
    found = played(save(tmp_path / "r.json", runs))
    recorded = scores(command.units(found, [r.run.reward for r in found], "airline"))
    ours = scores(command.units(found, [r.reward for r in found], "airline"))
    assert (recorded.pass_hat[1].value, ours.pass_hat[1].value) == (0.5, 1.0)
    (table,) = command.tables(found, "airline")
    assert [row[4] for row in table.rows] == ["1.000", "-"]


GOOD = {"task_id": 0, "trial": 0, "reward": 0.0, "info": {"task": {"instruction": "", "actions": []}}, "traj": []}
CALL = called("get_user_details", {"user_id": "x"})


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{nonsense", "is not JSON"),
        ("[]", "found an empty list"),
        ({"a": 1}, "found a JSON dict"),
        ({"simulations": [], "tasks": []}, "holds τ² simulations already"),
        ([{"task_id": 0}], "entry 0 is not a run of tau-bench v1: trial: Field required"),
        ([GOOD, 3], "entry 1 is not a run of tau-bench v1"),
        ([{**GOOD, "reward": -3.0}], "entry 0 is not a run of tau-bench v1: reward: Input should be greater"),
        ([{**GOOD, "reward": float("inf")}], "entry 0 is not a run of tau-bench v1: reward: Input should be less"),
        ([{**GOOD, "reward": float("nan")}], "entry 0 is not a run of tau-bench v1: reward"),
        ([GOOD, GOOD], "task 0, trial 0 is there twice"),
        ([{**GOOD, "info": {"error": "no key"}}], "no run has a trajectory, so there is nothing to play (v1 noted: no key)"),
        ([{**GOOD, "info": {}, "traj": said("Hi.")}], "info.task is not a task of tau-bench v1"),
        ([{**GOOD, "traj": said("Hi.")}], "fit airline and retail alike: give --domain"),
        ([{**GOOD, "traj": CALL[:1]}], "message 0 cannot be read (the call 'call_get_user_details' is not followed by"),
        ([{**GOOD, "traj": [{"role": "tool", "content": ""}]}], "message 0 cannot be read (a message of role 'tool'"),
        ([{**GOOD, "traj": [{**CALL[0], "tool_calls": "x"}]}], "tool_calls is not a list of calls"),
        (
            [{**GOOD, "traj": [{**CALL[0], "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "[1"}}]},
                               {"role": "tool", "tool_call_id": "1", "content": ""}]}],
            "a call needs a name, and a JSON object as arguments",
        ),
        ([{**GOOD, "traj": written("get_user_details", {})[:1]}], "is not followed by its 'API output:'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_clear_error(content: Any, error: str, tmp_path: Path) -> None:
    file = save(tmp_path / "bad.json", content)
    with pytest.raises(ConfigError) as raised:
        played(file)
    assert error in str(raised.value)
    assert "\n" not in str(raised.value)


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory; give the JSON file that tau-bench v1 wrote"):
        read_results(tmp_path / "none.json")
    task = writing_task("airline")
    other = run_of(writing_task("airline", outputs=True), said("No."), 0.0, trial=1)
    mixed = save(tmp_path / "mixed.json", [run_of(task, said("No."), 0.0), other])
    with pytest.raises(ConfigError, match="mixes two releases of tau-bench"):
        played(mixed)
    result = CliRunner().invoke(app, ["convert-v1", str(mixed), "--domain", "telecom"])
    assert isinstance(result.exception, ConfigError) and "airline and retail only" in str(result.exception)


# ---- the public results ----------------------------------------------------------------------------------------------


def test_the_public_runs_of_gpt_4o_on_airline() -> None:
    """All 200 rewards are the recorded ones; tau-bench v1's leaderboard says pass^1..4 = .420 .273 .220 .200 for them."""
    file = os.environ.get("TAU_BENCH_V1_RESULTS")
    if not file:
        pytest.skip("TAU_BENCH_V1_RESULTS does not name tau-bench v1's historical_trajectories/gpt-4o-airline.json")
    found = played(Path(file))
    assert len(found) == 200 and [r.run.name for r in found if not r.agrees] == []
    assert sum(r.reward == 1.0 for r in found) == 84
    unscored = {r.run.name for r in found if r.run.info["reward_info"] is None}
    assert {r.run.name for r in found if r.termination is Termination.MAX_STEPS} == unscored
    assert len(unscored) == 5
    assert sum(r.flipped for r in found) == 0
    for rewards in ([r.run.reward for r in found], [r.reward for r in found]):
        got = scores(command.units(found, rewards, "airline"))
        assert [round(got.pass_hat[k].value, 3) for k in (1, 2, 3, 4)] == [0.420, 0.273, 0.220, 0.200]
