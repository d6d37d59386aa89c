"""Datasets, the training configuration, and the command line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from tinker_cookbook.rl import train as cookbook

from tau2_slime.backends.tinker import Tau2Dataset, Tau2DatasetBuilder, Tau2RotatingDataset, Tau2TrainConfig
from tau2_slime.backends.tinker import train as command
from tau2_slime.backends.tinker.train import chz_arguments
from tau2_slime.errors import ConfigError
from tau2_slime.world import domains

RENDERER = "qwen3_instruct"


def build(model: str, **settings: Any) -> Any:
    given = {"domains": ["mock"], "task_split": "base", "eval_split": None, "user_model": "scripted", **settings}
    return asyncio.run(Tau2DatasetBuilder(model_name=model, renderer_name=RENDERER, **given)())


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


def test_the_same_seed_gives_the_same_batches(model: str) -> None:
    order = [[b.task_id for b in build(model, seed=seed)[0].get_batch(0)] for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]


def test_training_rotates_and_evaluation_does_not(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    training, evaluation = build(model, train_user_models=["scripted", "gpt-4o-mini"], eval_split="base")
    assert isinstance(training, Tau2RotatingDataset) and type(evaluation) is Tau2Dataset
    assert training.get_batch(0)[0].user_models == ("scripted", "gpt-4o-mini")
    assert evaluation.get_batch(0)[0].user_models == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"domains": ["nope"]}, "domain='nope' is unknown"),
        ({"task_split": "nope"}, "task_split='nope' is not a split"),
        ({"settings": {"max_turn": 1}}, "unknown key 'max_turn'"),
        ({"settings": {"max_turns": 0}}, "max_turns"),
        (
            {"train_user_models": ["gpt-4o-mini"], "settings": {"user_api_key_var": "NO_SUCH_VARIABLE"}},
            "NO_SUCH_VARIABLE",
        ),
    ],
)
def test_wrong_settings_are_told_before_training(model: str, settings: dict[str, Any], said: str) -> None:
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


def test_the_recipes_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the cookbook's training loop."""
    seen: list[Any] = []

    async def main(config: Any, **_: Any) -> None:
        seen.append(config)

    monkeypatch.setattr(cookbook, "main", main)
    models = [
        "gpt-4o-mini",
        "openrouter/deepseek/deepseek-v3.2",
        "openrouter/google/gemini-2.5-flash-lite-preview-09-2025",
    ]
    command.main(["--train_user_models", *models, "domains=retail,telecom", "--group_size", "4"])
    (config,) = seen
    assert isinstance(config, cookbook.Config)
    assert config.dataset_builder.train_user_models == models
    assert config.dataset_builder.domains == ["retail", "telecom"]
    assert config.dataset_builder.group_size == 4
    assert config.rollout_error_tolerance.catches_group_errors and config.remove_constant_reward_groups
    assert config.loss_fn == "importance_sampling" and config.temperature == 1.0


def test_a_mistake_on_the_command_line_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tau2_slime.backends.tinker.train", "--train_user_models"],
        capture_output=True,
        text=True,
        env={**os.environ},
        check=False,
    )
    assert (
        done.returncode == 1 and done.stderr.strip().splitlines()[-1] == "tau2_slime: --train_user_models needs a value"
    )


def test_every_default_of_the_configuration_is_accepted_by_the_cookbook() -> None:
    assert isinstance(Tau2TrainConfig().build(), cookbook.Config)
