"""A task file through the package's commands: played, resumed, prepared, listed, checked, curated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tau2_slime.cli.commands import app
from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.slime_adapter.settings import resolve_settings
from tau2_slime.tasks.facts import all_facts
from tau2_slime.world import domains

ROLLOUT = ("rollout", "--domain", "mock", "--groups", "2", "--config")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("TAU2_DOMAIN", "TAU2_TASK_SPLIT", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    domains._files.clear()


def write(path: Path, *changes: dict[str, Any], count: int = 2) -> Path:
    """A file of the first tasks of mock, under ids that τ² has too; ``changes`` of the first ones."""
    tasks = [task.model_dump(mode="json") for task in domains.tasks("mock", "base")[:count]]
    for task, change in zip(tasks, changes, strict=False):
        task.update(change)
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    domains._files.clear()
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], standalone_mode=False)


def error_of(result: Result) -> str:
    assert isinstance(result.exception, ConfigError), result.exception or result.output
    return str(result.exception)


def test_a_rollout_plays_the_file_and_is_not_resumed_over_another(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "mine.jsonl")
    config = tmp_path / "sub" / "config.yaml"
    config.write_text("tau2: {task_split: mine, task_files: {mine: mine.jsonl}}\n")
    result = run(*ROLLOUT, config, "--output-dir", "out")
    assert result.exception is None, result.output
    rows = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    assert {row["reward"] for row in rows} == {1.0}
    assert {row["task_split"] for row in rows} == {f"file:{tmp_path}/sub/mine.jsonl"}
    assert run(*ROLLOUT, config, "--output-dir", "out").exception is None, "the same file goes on"

    write(tmp_path / "sub" / "mine.jsonl", {"user_scenario": {"persona": None, "instructions": "Something else."}})
    first, second = (task.id for task in domains.tasks("mock", "base")[:2])
    said = error_of(run(*ROLLOUT, config, "--output-dir", "out"))
    assert "1 of 2 have changed" in said and first in said and f"{second}," not in said
    assert len((tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()) == 2, "nothing is lost"


def test_an_evaluation_plays_the_file_and_is_not_resumed_over_another(tmp_path: Path) -> None:
    words = ("eval", "--domain", "mock", "--split", "file:m.jsonl", "--tasks", "2", "--attempts", "1")
    words += ("--user-model", "scripted", "--no-baselines", "--output-dir", "out")
    file = write(tmp_path / "m.jsonl")
    result = run(*words)
    assert result.exception is None, result.exception
    protocol = json.loads((tmp_path / "out" / "manifest.json").read_text())["protocol"]["mock-file:m.jsonl-scripted"]
    assert list(protocol["task_files"]) == ["file:m.jsonl"] and len(protocol["tasks_of_files"]) == 2
    changed = {"user_scenario": {"persona": None, "instructions": "Something else."}}
    write(file, {}, changed)
    first, second = (task.id for task in domains.tasks("mock", "base")[:2])
    said = error_of(run(*words))
    assert f"tasks_of_files.mock/file:m.jsonl/{second}: " in said and f"m.jsonl/{first}:" not in said


def test_prompt_data_from_a_file_names_it_and_trains_no_test_task(tmp_path: Path) -> None:
    tasks = [task.model_dump(mode="json") for task in domains.tasks("airline", "test")[:2]]
    (tmp_path / "own.json").write_text(json.dumps(tasks))
    result = run("data", "--output_dir", "data", "--domains", "airline", "--splits", "file:own.json")
    assert result.exit_code == 0, result.output
    (row, _) = map(json.loads, (tmp_path / "data" / "airline_own_tasks.jsonl").read_text().splitlines())
    assert row["metadata"]["task_split"] == f"file:{tmp_path}/own.json", "its ids are not those of τ²'s test split"
    (entry,) = json.loads((tmp_path / "data" / "tau2_manifest.json").read_text())["files"].values()
    assert list(entry["sources"]) == ["file:own.json"]


def test_a_file_with_a_bad_row_plays_nothing_and_check_lists_every_row(tmp_path: Path) -> None:
    calls = [
        {"env_type": "assistant", "func_name": "update_task_status", "arguments": {"task_id": "no", "status": "x"}}
    ]
    write(tmp_path / "m.jsonl", {"id": ""}, {"initial_state": {"initialization_actions": calls}}, count=3)
    said = error_of(run("rollout", "--domain", "mock", "--split", "file:m.jsonl", "--output-dir", "out"))
    assert "line 1: its id is empty" in said and not (tmp_path / "out").exists()
    result = run("tasks", "check", "m.jsonl", "--domain", "mock")
    lines = result.stdout.splitlines()
    second = domains.tasks("mock", "base")[1].id
    assert lines[0] == "bad   line 1: its id is empty"
    assert lines[1].startswith(f"bad   task {second}: task {second} has no playable initial state: ")
    assert result.return_value == 1 or result.exit_code == 1
    assert lines[-1].startswith("3 tasks of mock: 2 bad")


def test_what_was_played_from_a_file_that_changed_is_neither_curated_nor_inspected(tmp_path: Path) -> None:
    file = write(tmp_path / "m.jsonl")
    words = ("--domain", "mock", "--split", "file:m.jsonl", "--output-dir")
    assert run("rollout", *words, "played").exception is None
    assert run("curate", "played", "--output-dir", "c", "--min-attempts", "1", "--below", "2").exception is None
    changed = {"user_scenario": {"persona": None, "instructions": "Something else."}}
    write(file, {}, changed)
    first, second = (task.id for task in domains.tasks("mock", "base")[:2])
    for command in (
        ("curate", "played", "--output-dir", "d", "--below", "2"),
        ("inspect", "played", "--html", "p.html"),
        ("inspect", "played", "--check"),
    ):
        said = error_of(run(*command))
        assert "1 of 2 have changed" in said and f"({second})" in said, first
    assert not (tmp_path / "d").exists() and not (tmp_path / "p.html").exists()
    assert run("inspect", "played").exception is None, "the list needs no task"


def test_each_task_that_breaks_tau2_is_one_line_of_check(tmp_path: Path) -> None:
    """An initial action that raises, and an assertion that raises at every agent."""
    raising = {
        "env_type": "assistant",
        "func_name": "assert_task_status",
        "arguments": {"task_id": "no", "expected_status": "x"},
    }
    start = {"env_type": "assistant", "func_name": "update_task_status", "arguments": {"task_id": "no", "status": "x"}}
    criteria = {"actions": [], "env_assertions": [raising], "reward_basis": ["ENV_ASSERTION"]}
    write(
        tmp_path / "m.jsonl",
        {"initial_state": {"initialization_actions": [start]}},
        {"evaluation_criteria": criteria},
        count=3,
    )
    result = run("tasks", "check", "m.jsonl", "--domain", "mock")
    bad = [line for line in result.stdout.splitlines() if line.startswith("bad")]
    ids = [task.id for task in domains.tasks("mock", "base")[:2]]
    assert [line.split()[2].rstrip(":") for line in bad] == ids and all(len(line) < 400 for line in bad)
    assert "Traceback" not in result.output


# ---- files of other generators -----------------------------------------------------------------------------------------


def airline_world() -> dict[str, Any]:
    """A database of two customers, none of them τ²'s."""
    user = {
        "name": {"first_name": "Ada", "last_name": "Okoye"},
        "address": {"address1": "1 A St", "city": "B", "country": "USA", "state": "CA", "zip": "1"},
        "email": "ada@example.com",
        "dob": "1990-01-01",
        "payment_methods": {},
        "saved_passengers": [],
        "membership": "regular",
    }
    trip = {
        "origin": "SFO",
        "destination": "JFK",
        "flight_type": "one_way",
        "cabin": "economy",
        "flights": [
            {"origin": "SFO", "destination": "JFK", "flight_number": "ZZ001", "date": "2024-05-20", "price": 90}
        ],
        "passengers": [{"first_name": "Ada", "last_name": "Okoye", "dob": "1990-01-01"}],
        "payment_history": [{"payment_id": "credit_card_1", "amount": 90}],
        "created_at": "2024-05-15T10:00:00",
        "total_baggages": 0,
        "nonfree_baggages": 0,
        "insurance": "yes",
    }
    names, ids = ("ada_okoye_1", "ada_okoye_2"), ("OWN001", "OWN002")
    return {
        "users": {n: {**user, "user_id": n, "reservations": [i]} for n, i in zip(names, ids, strict=True)},
        "reservations": {i: {**trip, "reservation_id": i, "user_id": n} for n, i in zip(names, ids, strict=True)},
    }


def cancels(task_id: str, reservation: str, **more: Any) -> dict[str, Any]:
    action = {"action_id": "1", "requestor": "assistant", "name": "cancel_reservation"}
    return {
        "id": task_id,
        "user_scenario": {
            "instructions": {"domain": "airline", "reason_for_call": "Cancel.", "task_instructions": "Be brief."}
        },
        "evaluation_criteria": {
            "actions": [{**action, "arguments": {"reservation_id": reservation}}],
            "communicate_info": [],
        },
        **more,
    }


def test_rows_of_other_generators_are_played_in_their_own_databases(tmp_path: Path) -> None:
    """An envelope with the database inside and a description in words, and rows with criteria as text that share a
    database beside the file."""
    own = {"initialization_data": {"agent_data": airline_world()}}
    told = {"description": "Purpose: cancel", "tau_description": {"purpose": "cancel", "notes": "all of it"}}
    enveloped = {"type": "Task", "data": cancels("a", "OWN001", initial_state=own, **told), "key": "x"}
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "one.json").write_text(json.dumps(airline_world()))
    beside = [cancels(name, number, db_path="db/one.json") for name, number in (("b", "OWN001"), ("c", "OWN002"))]
    beside = [{**row, "evaluation_criteria": json.dumps(row["evaluation_criteria"])} for row in beside]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [enveloped, *beside]))
    split = f"file:{tmp_path}/m.jsonl"
    facts = list(
        all_facts(Tau2Config(domain="airline", task_split=split), domains.tasks("airline", split), order=False)
    )
    assert [(one.problem, one.gold, one.do_nothing) for one in facts] == [("", 1.0, 0.0)] * 3
    first, second, third = domains.tasks("airline", split)
    assert first.description.notes == "all of it"
    assert second.initial_state.initialization_data is third.initial_state.initialization_data, "merged once"

    digest = domains.task_file("airline", split).digest("b")
    (tmp_path / "db" / "one.json").write_text(json.dumps({**airline_world(), "flights": {}}))
    domains._files.clear()
    assert domains.task_file("airline", split).digest("b") != digest, "another database is another task"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../secret.json", "leads out of the folder"),
        ("/etc/passwd", "leads out of the folder"),
        ("nothing.json", "cannot be read: No such file"),
        ("bad.json", "is not JSON"),
        ("bad.toml", "is not TOML"),
        (7, "is not a path"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_with_its_line(path: object, says: str, tmp_path: Path) -> None:
    for name in ("bad.json", "bad.toml"):
        (tmp_path / name).write_text("{")
    (tmp_path / "m.jsonl").write_text(json.dumps(cancels("a", "OWN001", db_path=path)) + "\n")
    with pytest.raises(ConfigError, match=f"line 1.*task a.*{says}"):
        domains.tasks("airline", f"file:{tmp_path}/m.jsonl")


def test_a_database_in_toml_and_a_description_in_words(tmp_path: Path) -> None:
    """As telecom's own database is written, and those of others for it."""
    task = next(task for task in domains.tasks("mock", "base") if task.id == "create_task_1").model_dump(mode="json")
    task["user_scenario"]["instructions"] = "Create a task for user_9."
    task["evaluation_criteria"]["actions"][0]["arguments"]["user_id"] = "user_9"
    task["initial_state"], task["description"], task["db_path"] = None, "One more user.", "more.toml"
    (tmp_path / "more.toml").write_text('[users.user_9]\nuser_id = "user_9"\nname = "Ada"\ntasks = []\n')
    (tmp_path / "m.jsonl").write_text(json.dumps(task) + "\n")
    split = f"file:{tmp_path}/m.jsonl"
    (one,) = domains.tasks("mock", split)
    assert one.description.purpose == "One more user."
    (facts,) = all_facts(Tau2Config(domain="mock", task_split=split), [one], order=False)
    assert (facts.problem, facts.gold, facts.do_nothing) == ("", 1.0, 0.0)


def test_a_ticket_of_a_file_is_worked_on_alone(tmp_path: Path) -> None:
    ticket = next(task for task in domains.tasks("telecom", "small") if task.ticket)
    (tmp_path / "m.jsonl").write_text(json.dumps({**ticket.model_dump(mode="json"), "id": "mine"}) + "\n")
    words = ("rollout", "--domain", "telecom", "--split", "file:m.jsonl", "--agent-type", "solo", "--output-dir", "out")
    result = run(*words)
    assert result.exception is None, result.output
    (row,) = map(json.loads, (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines())
    assert (row["task_id"], row["agent_type"], row["reward"], row["user_model"]) == ("mine", "solo", 1.0, "")


def test_tasks_list_has_a_line_for_each_and_show_is_readable() -> None:
    result = run("tasks", "list", "--domain", "mock", "--json")
    rows = {row["task_id"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert list(rows) == [task.id for task in domains.tasks("mock", "base")]
    one = rows["create_task_1"]
    assert (one["actions"], one["writes"], one["tools"], one["do_nothing"], one["gold"]) == (
        1,
        1,
        ["create_task"],
        0,
        1,
    )
    shown = run("tasks", "show", "20", "--domain", "retail", "--split", "base").stdout
    assert "modify_pending_order_items(" in shown and "order inside a list" in shown
    assert "Modify items" in shown and "Reason for call" in shown


def test_curation_keeps_what_is_solved_sometimes_and_says_why_it_drops_the_rest(tmp_path: Path) -> None:
    def row(index: int, task: str, reward: float | None, group: int, split: str = "base") -> str:
        facts = {"domain": "mock", "task_split": split, "task_id": task, "status": "completed", "blame": "agent"}
        facts |= {"termination": "user_stop", "reward": reward, "agent_type": "llm", "user_model": "scripted"}
        return json.dumps({"index": index, "group": group, "messages": [], "stats": {}, **facts}) + "\n"

    write(tmp_path / "m.jsonl")
    mine = f"file:{tmp_path}/m.jsonl"
    found = [
        *[("create_task_1", r, 0, "base") for r in (1.0, 0.0)],
        *[("create_task_1", r, 1, mine) for r in (1.0, 0.0, 0.0)],
        *[("update_task_1", r, 2, "base") for r in (1.0, 1.0)],
        *[("impossible_task_1", r, 3, "base") for r in (1.0, 0.0)],
        *[("create_task_1_with_env_assertions", r, 4, "base") for r in (1.0, None)],
        *[("gone", r, 5, "base") for r in (1.0, 0.0)],
    ]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "trajectories.jsonl").write_text(
        "".join(row(i, t, r, g, s) for i, (t, r, g, s) in enumerate(found))
    )
    result = run("curate", "run", "--output-dir", "out")
    assert result.exception is None, result.exception
    report = json.loads((tmp_path / "out" / "curation.json").read_text())
    reasons = {(one["task_id"], one["split"]): one["reason"] for one in report["tasks"]}
    assert reasons["create_task_1", "base"] == reasons["create_task_1", mine] == ""
    assert reasons["update_task_1", "base"] == "pass rate not below 1"
    assert reasons["impossible_task_1", "base"] == "paid for doing nothing or transferring at once"
    assert reasons["create_task_1_with_env_assertions", "base"] == "fewer than 2 attempts that count"
    assert reasons["gone", "base"].startswith("its task is not found")
    own = next(one for one in report["tasks"] if one["split"] == mine)
    # Wilson's interval of 1 of 3, by hand: (1/3 + 1.9207/3 -+ 1.96 sqrt(2/27 + 0.9604/9)) / (1 + 3.8415/3)
    assert own["rate"] == pytest.approx(1 / 3) and own["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-3)
    assert (own["groups"], own["mixed_groups"]) == (1, 1)
    kept = [task.id for task in domains.tasks("mock", f"file:{tmp_path}/out/mock_curated.jsonl")]
    assert kept == ["create_task_1", "file:m.jsonl/create_task_1"], "both are there, each with an id of its own"
    assert "other tasks" in error_of(run("curate", "run", "--output-dir", "out", "--per-domain", "1"))
    assert run("curate", "run", "--output-dir", "out", "--per-domain", "1", "--force").exception is None


@pytest.mark.parametrize(
    ("domain", "lists", "writes"),
    [
        ("retail", "20 21 36 37 100", "22"),
        ("airline", "8 14 20 23 24 25 40", "7 32 33"),
    ],
)
def test_the_official_tasks_that_an_order_decides_are_found(domain: str, lists: str, writes: str) -> None:
    wanted = {**dict.fromkeys(lists.split(), "lists"), **dict.fromkeys(writes.split(), "writes")}
    config = Tau2Config(domain=domain, task_split="base")
    others = [task.id for task in domains.tasks(domain, "base")][::9]
    pool = [domains.find_task(domain, "base", task_id=name) for name in dict.fromkeys([*wanted, *others])]
    found = {one.task_id: one.order for one in all_facts(config, pool)}
    assert {name: order for name, order in found.items() if order} == wanted


def test_settings_of_slime_count_paths_from_the_files_that_hold_them(tmp_path: Path) -> None:
    """slime hands over the mapping and the metadata, and the names of the files among its arguments."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.jsonl").write_text("")
    args: Any = SimpleNamespace(
        tau2={"task_split": "file:a.jsonl"},
        custom_config_path=str(tmp_path / "a" / "config.yaml"),
        prompt_data=f"{tmp_path}/b/rows.jsonl@[0:10]",
        eval_config=str(tmp_path / "b" / "eval.yaml"),
        eval_datasets=[SimpleNamespace(path=str(tmp_path / "c" / "rows.jsonl"))],
    )
    assert resolve_settings(args).task_split == f"file:{tmp_path}/a/a.jsonl"
    assert resolve_settings(args, {"task_split": "file:b.jsonl"}).task_split == f"file:{tmp_path}/b/b.jsonl"
    given = {"split": "file:c.jsonl"}
    assert resolve_settings(args, given, evaluation=True).task_split == f"file:{tmp_path}/c/c.jsonl"


def test_generate_plays_a_task_of_a_file(tmp_path: Path, checkpoint: Path) -> None:
    from tau2_slime.generate_with_tau2 import generate
    from tau2_slime.local.policy_server import PolicyServer
    from tau2_slime.slime_adapter.sample import StandaloneSample

    write(tmp_path / "m.jsonl", {"id": "a b/ü"})

    async def play() -> StandaloneSample:
        async with PolicyServer(str(checkpoint)) as server:
            host, port = server.url.removeprefix("http://").split(":")
            args: Any = SimpleNamespace(
                hf_checkpoint=str(checkpoint), sglang_router_ip=host, sglang_router_port=int(port), tau2={}
            )
            metadata = {"domain": "mock", "task_split": "file:m.jsonl", "task_id": "a b/ü", "user_model": "scripted"}
            sample = StandaloneSample(index=0, prompt="0", metadata=metadata)
            await generate(args, sample, {"temperature": 1.0})
            return sample

    sample = asyncio.run(play())
    assert sample.reward == 1.0, sample.metadata["tau2"]
    assert sample.metadata["tau2"]["task_split"] == f"file:{tmp_path}/m.jsonl"
