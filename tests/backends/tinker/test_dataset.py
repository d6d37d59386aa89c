"""Datasets, the training configuration, and the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tinker_cookbook.rl import train as cookbook

from tau2_slime.backends.tinker import Tau2Dataset, Tau2DatasetBuilder, Tau2RotatingDataset, Tau2TrainConfig
from tau2_slime.backends.tinker import train as command
from tau2_slime.backends.tinker.train import chz_arguments
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains
from tests.backends import few_shot_file

RENDERER = "qwen3_instruct"


def build(model: str, **settings: Any) -> Any:
    given = {"domains": ["mock"], "task_split": "base", "eval_split": None, "user_model": "scripted"}
    return asyncio.run(Tau2DatasetBuilder(model_name=model, **{"renderer_name": RENDERER, **given, **settings})())


def test_several_domains_every_task_once(model: str) -> None:
    training, evaluation = build(
        model, domains=["retail", "telecom"], task_split="train", eval_split="test", groups_per_batch=10, epochs=2
    )
    builders = [b for i in range(len(training)) for b in training.get_batch(i)]
    seen = [(b.config.domain, b.task_id) for b in builders]
    wanted = sorted((d, t.id) for d in ("retail", "telecom") for t in domains.tasks(d, "train"))
    assert sorted(seen[: len(wanted)]) == sorted(seen[len(wanted) :]) == wanted
    assert seen[: len(wanted)] != seen[len(wanted) :]  # shuffled anew
    assert {b.group_size for b in builders} == {8}
    tests = evaluation.get_batch(0)
    assert len(evaluation) == 1 and {b.group_size for b in tests} == {1}
    assert {b.config.task_split for b in tests} == {"test"}
    assert builders[0].logging_tags() == ["tau2", f"tau2_{builders[0].config.domain}"]


def test_only_the_named_tasks_are_trained_on(model: str) -> None:
    training, evaluation = build(model, task_ids=["update_task_1", "create_task_1"], eval_split="base", epochs=2)
    trained = [b.task_id for i in range(len(training)) for b in training.get_batch(i)]
    assert sorted(trained) == ["create_task_1"] * 2 + ["update_task_1"] * 2
    assert len(evaluation.get_batch(0)) > 2  # evaluation has its own split


def test_the_same_seed_gives_the_same_batches(model: str) -> None:
    order = [[b.task_id for b in build(model, seed=seed)[0].get_batch(0)] for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]


def test_training_rotates_and_evaluation_does_not(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    training, evaluation = build(model, train_user_models=["scripted", "gpt-4o-mini"], eval_split="base")
    assert isinstance(training, Tau2RotatingDataset) and type(evaluation) is Tau2Dataset
    assert training.get_batch(0)[0].user_models == ("scripted", "gpt-4o-mini") * 4
    assert evaluation.get_batch(0)[0].user_models == ()
    assert evaluation.get_batch(0)[0].config.user_model == "scripted"


def dealt(training: Any) -> list[str]:
    return [m for i in range(len(training)) for b in training.get_batch(i) for m in b.user_models]


@pytest.mark.parametrize("group_size", [2, 8])
def test_over_the_groups_every_simulator_gets_its_share(model: str, group_size: int) -> None:
    """Also where a group is smaller than the pool, or no multiple of it."""
    names = ["scripted", "scripted-silent", "scripted-terse"]
    given = {"user_simulators": [{"name": n, "model": "scripted"} for n in names]}
    training, _ = build(model, group_size=group_size, epochs=6, settings=given)
    counts = [dealt(training).count(name) for name in names]
    assert max(counts) - min(counts) <= 1
    groups = [b.user_models for b in training.get_batch(0)]
    assert all(len(set(group)) == min(group_size, 3) for group in groups)


def test_the_pool_and_the_rotation_of_the_settings_count_here_too(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = [{"name": "much", "model": "scripted", "weight": 3}, {"name": "little", "model": "scripted"}]
    training, _ = build(model, settings={"user_simulators": pool, "user_rotation": "weighted"}, epochs=10)
    shares = dealt(training)
    assert shares.count("much") == pytest.approx(0.75 * len(shares), abs=2)
    monkeypatch.setenv("TAU2_USER_MODEL_ROTATION", "much,little")
    monkeypatch.setenv("TAU2_USER_ROTATION", "across_groups")
    pool[0]["weight"] = 1
    training, _ = build(model, settings={"user_simulators": pool})
    assert [set(b.user_models) for b in training.get_batch(0)[:2]] == [{"much"}, {"little"}]


def test_a_simulator_that_is_out_can_be_stood_in_for_in_training_only(model: str) -> None:
    training, evaluation = build(
        model,
        train_user_models=["scripted", "scripted-b"],
        eval_split="base",
        settings={
            "user_failover": "next",
            "user_simulators": [{"name": "scripted-b", "model": "scripted"}],
        },
    )
    assert training.get_batch(0)[0].config.stand_ins_for("scripted", evaluation=False) == ["scripted-b"]
    assert evaluation.get_batch(0)[0].evaluation and not training.get_batch(0)[0].evaluation


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"domains": ["nope"]}, "domain='nope' is unknown"),
        ({"task_split": "nope"}, "task_split='nope' is not a split"),
        ({"task_ids": ["create_task_1", "nope"]}, "task_ids: nope: no such task"),
        ({"settings": {"max_turn": 1}}, "unknown key 'max_turn'; did you mean 'max_turns'"),
        (
            {"settings": {"chat_template_kwargs": {}}},
            "'chat_template_kwargs' changes nothing here: the renderer decides",
        ),
        ({"settings": {"user_model": "x"}}, "'user_model' changes nothing here: it has a field"),
        ({"user_model": "scripted-nobody"}, "users without a model are"),
        ({"group_size": 0}, "group_size=0"),
        ({"user_model": "openrouter/some/model"}, "OPENROUTER_API_KEY"),
        ({"settings": {"max_turns": 0}}, "max_turns"),
        (
            {"domains": ["mock", "retail"], "max_trajectory_tokens": 4000, "max_tokens": 500},
            r"max_trajectory_tokens=4000: policy, tools and examples of retail alone are \d+ tokens, and max_tokens=500 are",
        ),
        (  # solo play talks to no simulator, and has to fit all the same
            {"domains": ["mock"], "settings": {"agent_type": "solo"}, "max_trajectory_tokens": 600, "max_tokens": 500},
            r"max_trajectory_tokens=600: policy, tools and examples of mock alone are \d+ tokens",
        ),
        ({"domains": ["mock"], "settings": {"agent_type": "solo"}, "renderer_name": "role_colon"}, "role_colon"),
        (
            {"train_user_models": ["gpt-4o-mini"], "settings": {"user_api_key_var": "NO_SUCH_VARIABLE"}},
            "NO_SUCH_VARIABLE",
        ),
    ],
)
def test_wrong_settings_are_told_before_training(
    model: str, settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=said):
        build(model, **settings)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--train_user_models", "a/b", "c-d.e"], ["train_user_models=a/b,c-d.e"]),
        (
            ["--train-user-models", "a", "--group_size=4", "max_steps=3"],
            ["train_user_models=a", "group_size=4", "max_steps=3"],
        ),
        (["--max_steps", "3", "domains=retail,telecom"], ["max_steps=3", "domains=retail,telecom"]),
    ],
)
def test_both_spellings(given: list[str], wanted: list[str]) -> None:
    assert chz_arguments(given) == wanted


@pytest.mark.parametrize("given", [["--max_steps"], ["stray"]])
def test_a_spelling_without_sense_is_refused(given: list[str]) -> None:
    with pytest.raises(ConfigError):
        chz_arguments(given)


def test_the_renderer_is_named_to_the_cookbook_also_where_it_is_the_recommended_one() -> None:
    """Without its name, the cookbook neither keeps it with a checkpoint nor compares it with that of one."""
    config = Tau2TrainConfig(model_name="Qwen/Qwen3-4B-Instruct-2507").build()
    assert config.renderer_name == config.dataset_builder.renderer_name == "qwen3_instruct"
    assert Tau2TrainConfig(
        model_name="Qwen/Qwen3-8B", renderer_name="qwen3_disable_thinking"
    ).build().renderer_name == ("qwen3_disable_thinking")


def test_the_recipes_command_line(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the cookbook's training loop."""
    seen: list[Any] = []

    async def main(config: Any, **_: Any) -> None:
        seen.append(config)

    monkeypatch.setattr(cookbook, "main", main)
    for variable in ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "TINKER_API_KEY"):
        monkeypatch.setenv(variable, "tml-none")
    models = [
        "gpt-4o-mini",
        "openrouter/deepseek/deepseek-v3.2",
        "openrouter/google/gemini-2.5-flash-lite-preview-09-2025",
    ]
    small = [f"model_name={model}", f"renderer_name={RENDERER}"]
    command.main(["--train_user_models", *models, "domains=retail,telecom", "--group_size", "4", *small])
    (config,) = seen
    assert isinstance(config, cookbook.Config)
    assert list(config.dataset_builder.train_user_models) == models
    assert config.dataset_builder.domains == ["retail", "telecom"]
    assert config.dataset_builder.group_size == 4
    assert config.rollout_error_tolerance.catches_group_errors
    assert config.loss_fn == "importance_sampling" and config.temperature == 1.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--train_user_models"], "--train_user_models needs a value"),
        (["--group_sise", "4"], "'group_sise'.*Did you mean 'group_size'"),
        (["group_size=four"], "'group_size': Could not cast 'four' to int"),
        (["user_model=scripted", "model_name=no/such-model"], "model_name='no/such-model'.*Unknown model"),
        (["user_model=scripted", "domains=nope"], "domain='nope' is unknown; .* has: airline"),
        (["--train_user_models", "gpt-4o-mini"], "OPENAI_API_KEY, which is not set"),
        (
            ["--train_user_models", "openrouter/a/b", "user_model=scripted"],
            "needs OPENROUTER_API_KEY in the environment",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_started(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cookbook, "main", None)
    monkeypatch.setenv("TINKER_API_KEY", "tml-none")
    for variable in ("OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit, match=said) as ended:
        command.main([*given, f"log_path={tmp_path / 'log'}"])
    assert str(ended.value).startswith("tau2_slime: ") and "\n" not in str(ended.value)
    assert not (tmp_path / "log").exists()


def test_without_a_key_for_tinker(tmp_path: Path) -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TINKER_")} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tau2_slime.backends.tinker.train", "--user_model", "scripted"],
        capture_output=True,
        text=True,
        env=environ,
        cwd=tmp_path,
        check=False,
    )
    (said,) = done.stderr.strip().splitlines()
    assert done.returncode == 1 and said.endswith("put it into the environment variable TINKER_API_KEY")
    assert list(tmp_path.glob("runs")) == []


def test_ctrl_c_ends_a_run_in_one_line(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cookbook, "main", interrupted)
    monkeypatch.setenv("TINKER_API_KEY", "tml-none")
    given = {"model_name": model, "renderer_name": RENDERER, "log_path": tmp_path / "log", "eval_split": "None"}
    given |= {"domains": "mock", "task_split": "base", "user_model": "scripted"}
    with pytest.raises(SystemExit) as ended:
        command.main([f"{key}={value}" for key, value in given.items()])
    assert ended.value.code == 130
    assert "the same command goes on from the last checkpoint" in capsys.readouterr().err


def test_help_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in Tau2TrainConfig.__annotations__)


def test_names_that_users_know_count_unless_the_command_line_says_otherwise(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAU2_USER_MODEL", "scripted")
    monkeypatch.setenv("TAU2_MAX_TURNS", "7")
    given = {"model_name": model, "renderer_name": RENDERER, "domains": ["mock"], "task_split": "base"}
    for settings, turns in ({}, 7), ({"max_turns": 9}, 9):
        config = Tau2TrainConfig(**given, eval_split=None, **settings).build()
        training, evaluation = asyncio.run(config.dataset_builder())
        (first, *_) = training.get_batch(0)
        assert (first.config.user_model, first.config.max_turns, evaluation) == ("scripted", turns, None)


def test_examples_that_cannot_be_shown_are_told_before_anything_is_sampled(model: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        build(model, settings={"few_shot": "/nowhere.jsonl"})
    examples = few_shot_file.write(tmp_path / "examples.jsonl")
    with pytest.raises(ConfigError, match="it has examples from 3 tasks of mock; few_shot_count=3 needs 4"):
        build(model, settings={"few_shot": str(examples)})
    with pytest.raises(ConfigError, match="no episode could begin"):  # the examples do not fit
        rows = [json.loads(line) for line in examples.read_text().splitlines()]
        for row in rows:
            row["messages"][0]["content"] *= 2000
        examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
        long = tmp_path / "long.jsonl"
        examples.rename(long)
        build(model, settings={"few_shot": str(long), "few_shot_count": 2}, max_trajectory_tokens=8000)
