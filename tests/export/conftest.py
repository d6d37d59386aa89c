"""Rollouts to export: gold and imperfect play of the embedded policy on three checkpoints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tau2_slime.rollout import RolloutPlan, plan_jobs, run
from tests.tokens.rows import ROWS

TASKS = ["update_task_1", "update_task_with_message_history", "impossible_task_1"]


def play(folder: Path, checkpoint: Path, *, spelling: float, attempts: int = 6, **changes: object) -> Path:
    """A folder as `tau2-slime rollout` leaves it."""
    plan = RolloutPlan(
        jobs=plan_jobs(["mock"], None, TASKS, None, attempts),
        output_dir=folder,
        hf_checkpoint=str(checkpoint),
        overrides={"user_model": "scripted", "max_turns": 60, **changes},
        sampling_params={"temperature": 1.0, "max_new_tokens": 512},
        policy_noise=0.6,
        spelling=spelling,
    )
    asyncio.run(run(plan))
    (folder / "summary.json").write_text(json.dumps({"hf_checkpoint": str(checkpoint), "embedded": True}))
    return folder


@pytest.fixture(scope="session")
def played(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """Imperfect play in the tokenizer's own spelling."""
    return play(tmp_path_factory.mktemp("runs") / "plain", checkpoint, spelling=0.0)


@pytest.fixture(scope="session")
def respelt(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """The same in tokens that no tokenizer would write."""
    return play(tmp_path_factory.mktemp("runs") / "respelt", checkpoint, spelling=0.3)


def saved(folder: Path, row: str) -> Path:
    """A checkpoint folder with the tokenizer of a model family; skips where its template was not fetched."""
    ROWS[row].tokenizer().save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imperfect play with Qwen3-Instruct-2507's template."""
    folder = tmp_path_factory.mktemp("instruct")
    return play(folder / "run", saved(folder / "checkpoint", "Qwen3-Instruct-2507"), spelling=0.0)


@pytest.fixture(scope="session")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imperfect play with Qwen3's hybrid template, thinking switched off."""
    folder = tmp_path_factory.mktemp("hybrid")
    checkpoint = saved(folder / "checkpoint", "Qwen3 hybrid, thinking")
    return play(folder / "run", checkpoint, spelling=0.0, attempts=2, chat_template_kwargs={"enable_thinking": False})


@pytest.fixture(scope="session")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imperfect play of a policy that thinks before each turn."""
    folder = tmp_path_factory.mktemp("thinking")
    return play(folder / "run", saved(folder / "checkpoint", "Qwen3-Thinking-2507"), spelling=0.0, attempts=2)
