"""Few-shot: what an episode is shown, what it never is shown, and that every token of it is what the template writes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tau2_slime.cli.commands import app
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.examples import examples_of, told
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.command import evaluate
from tau2_slime.evaluation.request import Request
from tau2_slime.export.command import ExportRequest, Format, export
from tau2_slime.export.episodes import Filters
from tau2_slime.inspector import sources
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.drift_check import DriftCounts, check_drift
from tau2_slime.policy.checkpoint import build_profile
from tau2_slime.policy.context_plan import longest_first_prompt
from tau2_slime.tokens.calls.action_text import action_format
from tau2_slime.world import domains, tau2_compat
from tests.evaluation.test_taubench_v1 import gold as v1_gold
from tests.evaluation.test_taubench_v1 import run_of
from tests.evaluation.test_taubench_v1 import save as v1_save
from tests.test_agent_strategies import rollout


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tasks of retail's train split, played by gold, as the command exports them."""
    folder = tmp_path_factory.mktemp("gold")
    tasks = [task.id for task in domains.tasks("retail", "train")][:6]
    asyncio.run(rollout(folder / "run", "retail", tasks))
    export(ExportRequest((folder / "run",), Format.EXAMPLES, folder / "out"))
    return folder / "out" / "examples.jsonl"


def config(path: Path, **more: Any) -> Tau2Config:
    return Tau2Config.resolve({"few_shot": str(path), **more}, environ={})


def ids(settings: Tau2Config, task_id: str, split: str = "train") -> list[str]:
    return [one.task_id for one in examples_of(settings, "retail", split, task_id)]


def test_a_run_shows_the_same_and_a_task_never_itself(examples: Path) -> None:
    there = [json.loads(line)["task_id"] for line in examples.read_text().splitlines()]
    assert len(there) == len(set(there)) == 6
    usual = ids(config(examples), "none of them")
    assert len(usual) == 3
    for task_id in there:
        shown = ids(config(examples), task_id)
        assert task_id not in shown and len(shown) == 3
        assert shown == usual if task_id not in usual else [one for one in usual if one != task_id] == shown[:2]
    assert usual[0] in ids(config(examples), usual[0], "file:/mine.jsonl"), "a file's task 7 is another task"
    assert len({tuple(ids(config(examples, few_shot_seed=seed), "x")) for seed in range(8)}) > 1


def test_the_same_seed_chooses_the_same_in_another_process(examples: Path) -> None:
    """Python's own hashing differs from process to process."""
    import subprocess
    import sys

    code = (
        "import sys; from tau2_slime.config.settings import Tau2Config; from tau2_slime.episode.examples import examples_of;"
        "print([e.task_id for e in examples_of(Tau2Config(few_shot=sys.argv[1]), 'retail', 'train', 'x')])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(examples)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ids(config(examples), "x"))


@pytest.mark.parametrize("strategy", ["native", "react"])
async def test_every_token_of_a_few_shot_episode_is_proved(examples: Path, tmp_path: Path, strategy: str) -> None:
    rows = await rollout(
        tmp_path, "retail", ["2", "3"], agent_strategy=strategy, few_shot=str(examples), few_shot_count=2
    )
    assert [row["reward"] for row in rows] == [1.0, 1.0]
    found, counts = sources.read_episodes(tmp_path), DriftCounts()
    from tau2_slime.local.tokenizer import local_checkpoint

    language = build_profile(str(local_checkpoint()), Tau2Config(agent_strategy=strategy))
    for trajectory in found.trajectories:
        assert check_trajectory(trajectory) == check_drift(trajectory, language, counts) == []
        prompt = language.delta.template.decode(list(trajectory.tokens[: trajectory.prompt_length]))
        assert prompt.count("## Example ") == 2
        call = '{"name": "get_order_details", "arguments": {"order_id": "'
        assert ("<tool_call>\n" if strategy == "native" else "Action:\n") + call in prompt.split("## Example 1")[1]
    assert (counts.prompts, counts.skipped) == (2, {})


def test_calls_are_told_as_the_model_writes_them(examples: Path) -> None:
    (one, *_) = examples_of(config(examples), "retail", "train", "x")
    react = action_format("react")
    assert react is not None
    text = told([one], react.format, react)
    call = next(message["tool_calls"][0]["function"] for message in one.messages if message.get("tool_calls"))
    assert react.format([(call["name"], call["arguments"])]) in text
    assert '{"name": "respond"' in text and "API output: " in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"few_shot_count": 6}, "it has examples from 6 tasks of retail; few_shot_count=6 needs 7"),
        ({"few_shot": "/nowhere.jsonl"}, "/nowhere.jsonl: no such file; `tau2-slime export RUN --format examples`"),
    ],
)
def test_what_cannot_be_shown_is_told_before_anything_is_played(
    examples: Path, change: dict[str, Any], words: str
) -> None:
    from tau2_slime.rollout import plan_jobs

    settings = config(examples, **change)
    with pytest.raises(ConfigError) as raised:
        plan_jobs(["retail"], "train", [], 1, 1, settings)
    assert words in str(raised.value)


def changed(examples: Path, path: Path, **fields: Any) -> Path:
    rows = [json.loads(line) for line in examples.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, **(fields if not i else {})}) + "\n" for i, row in enumerate(rows)))
    return path


def test_a_held_out_task_is_refused(examples: Path, tmp_path: Path) -> None:
    test_id = domains.splits("retail")["test"][0]
    for fields in ({"task_id": test_id}, {"task_split": "test"}):
        with pytest.raises(ConfigError, match="is in τ²'s test split"):
            ids(config(changed(examples, tmp_path / f"{len(fields)}{'task_id' in fields}.jsonl", **fields)), "x")


def test_garbage_is_named_by_its_line(tmp_path: Path) -> None:
    for number, line in enumerate(["{}", "no json", '{"messages": 1}', '{"messages": [1], "domain": "retail"}']):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(f"{line}\n")
        with pytest.raises(ConfigError, match="line 1: not an example"):
            ids(config(path), "x")


def test_examples_that_would_break_the_prompt_are_refused(examples: Path, tmp_path: Path, checkpoint: Path) -> None:
    spelled = [{"role": "user", "content": "Hi <|im_end|>"}]
    rows = [json.loads(line) for line in examples.read_text().splitlines()]
    path = tmp_path / "spelled.jsonl"
    path.write_text("".join(json.dumps({**row, "messages": spelled}) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"spells the control token '<\|im_end\|>'"):
        build_profile(str(checkpoint), config(path))
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({**row, "messages": row["messages"] * 60}) + "\n" for row in rows))
    with pytest.raises(ConfigError, match="more than half of the checkpoint's context"):
        build_profile(str(checkpoint), config(path))


def test_the_strategy_of_that_name_needs_the_file(examples: Path) -> None:
    assert config(examples, agent_strategy="few-shot").agent_strategy == "native"
    with pytest.raises(ConfigError) as raised:
        Tau2Config.resolve({"agent_strategy": "few-shot"}, environ={})
    assert str(raised.value).startswith("agent_strategy few-shot needs few_shot")


def shown_to(path: Path, task_id: str, count: int) -> list[str]:
    return ids(config(path, few_shot_count=count), task_id)


def test_what_tau2_recorded_becomes_examples(tmp_path: Path) -> None:
    """A file of τ²'s own `Results`, which says no split: its test tasks stay behind all the same."""
    test_id = domains.splits("retail")["test"][0]
    chosen = [*(task.id for task in domains.tasks("retail", "train")[:3]), test_id]
    request = Request(
        tmp_path / "run", domains=["retail"], split="base", task_ids=chosen, users=["scripted"], attempts=1
    )
    assert evaluate(dataclasses.replace(request, with_baselines=False), Console(quiet=True)) == 0
    (results,) = (tmp_path / "run" / "results").glob("*.json")
    assert tau2_compat.load().Results.model_validate_json(results.read_text()).simulations
    done = export(ExportRequest((results,), Format.EXAMPLES, tmp_path / "out"))
    assert done.card["left_out"] == {"test-task": 1}
    assert sorted(shown_to(tmp_path / "out" / "examples.jsonl", "none of them", 2)) < sorted(chosen[:3])
    assert sorted(shown_to(tmp_path / "out" / "examples.jsonl", chosen[0], 2)) == sorted(chosen[1:3])


def test_what_v1_recorded_becomes_examples_but_not_of_tasks_that_tau2_tests(tmp_path: Path) -> None:
    """v1's numbers name other tasks: it is what gold writes that tells a task of the test split, and the one played."""
    test = domains.splits("retail")["test"]
    writing = [
        task
        for task in domains.tasks("retail", "base")
        if any(action.name in domains.write_tools("retail") for action in task.evaluation_criteria.actions or [])
    ]
    train = [task for task in writing if task.id not in test][:3]
    held_out = next(task for task in writing if task.id in test)
    idle = next(task for task in domains.tasks("retail", "base") if task not in writing)
    runs = [run_of(task, v1_gold(task), 1.0, number=900 + at) for at, task in enumerate([*train, held_out, idle])]
    file = v1_save(tmp_path / "gpt.json", runs)
    converted = CliRunner().invoke(app, ["convert-v1", str(file), "--output-dir", str(tmp_path / "v1")])
    assert converted.exit_code == 0, converted.output
    done = export(ExportRequest((tmp_path / "v1" / "simulations.json",), Format.EXAMPLES, tmp_path / "out"))
    assert done.card["left_out"] == {"test-task": 2}
    path = tmp_path / "out" / "examples.jsonl"
    names = {task.id for task in train}
    assert {json.loads(line)["task_id"] for line in path.read_text().splitlines()} == names
    assert set(shown_to(path, train[0].id, 2)) == names - {train[0].id}
    assert told(examples_of(config(path, few_shot_count=2), "retail", "train", "x"), str, None).count("## Example") == 2


def test_few_examples_of_a_domain_that_is_not_played_are_no_matter(
    examples: Path, tmp_path: Path, checkpoint: Path
) -> None:
    rows = [json.loads(line) for line in examples.read_text().splitlines()]
    path = tmp_path / "two.jsonl"
    path.write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in [*rows, {**rows[0], "domain": "airline", "task_id": domains.splits("airline")["train"][0]}]
        )
    )
    build_profile(str(checkpoint), config(path, few_shot_count=2))
    with pytest.raises(ConfigError, match="it has examples from 1 tasks of airline"):
        examples_of(config(path, few_shot_count=2), "airline", "train", "3")


def test_a_test_task_does_not_become_an_example(tmp_path: Path, examples: Path) -> None:
    """The exporter leaves it out already."""
    rows = (examples.parent.parent / "run" / "trajectories.jsonl").read_text().splitlines()
    test_id = domains.splits("retail")["test"][0]
    moved = {**json.loads(rows[0]), "task_id": test_id}
    (tmp_path / "trajectories.jsonl").write_text("\n".join([json.dumps(moved), *rows[1:]]) + "\n")
    done = export(ExportRequest((tmp_path,), Format.EXAMPLES, tmp_path / "out", Filters()))
    assert done.card["left_out"] == {"test-task": 1}
    left = [json.loads(line)["task_id"] for line in (tmp_path / "out" / "examples.jsonl").read_text().splitlines()]
    assert left and test_id not in left


def test_examples_count_in_the_first_prompt(examples: Path, checkpoint: Path) -> None:
    """What leaves no room for an answer is told before the first episode, of a run's own limit too."""
    task, sizes = domains.tasks("retail", "train")[10].id, []
    for settings in (Tau2Config(), config(examples, few_shot_count=1)):
        profile = build_profile(str(checkpoint), settings)
        sizes.append(longest_first_prompt([(settings, task)], profile)[0])
    (shown,) = examples_of(settings, "retail", "train", task)
    text = told([shown], profile.parser.format, None)
    assert sizes[1] - sizes[0] == pytest.approx(len(profile.delta.template.encode(text)), abs=2)
    with pytest.raises(ConfigError, match="the first prompt alone has"):
        longest_first_prompt([(settings, task)], profile, sizes[0] + 10)
