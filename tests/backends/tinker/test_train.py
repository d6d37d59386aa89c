"""The cookbook's whole training loop, a few steps: only the service behind it is ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tinker
from tinker_cookbook import tokenizer_utils

from tau2_slime.backends.tinker import train as command
from tests.backends.tinker.fake_service import FakeService


def test_grpo_learns_to_do_what_tau2_rewards(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    service = FakeService(tokenizer_utils.get_tokenizer(model))
    monkeypatch.setattr(tinker, "ServiceClient", service)
    log = tmp_path / "log"
    command.main(
        [
            *("--model_name", model, "--renderer_name", "qwen3_instruct", "--domains", "mock", "--task_split", "base"),
            *("--max_tasks", "1", "--epochs", "4", "--groups_per_batch", "1", "--group_size", "6"),
            *("--user_model", "scripted", "--eval_split", "base", "--eval_every", "3", "--save_every", "2"),
            *("--remove_constant_reward_groups", "False", "--log_path", str(log)),
        ]
    )
    # Four batches; the releases differ in whether every one of them is trained on.
    assert 2 <= len(service.losses) <= 4 and set(service.losses) == {"importance_sampling"}
    assert service.history[-1] > service.history[0]  # gold is played more often than before
    rows = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "env/all/reward/total" in row]
    assert len(trained) >= 2
    for row in trained:
        assert row["env/all/tau2/blame/agent"] == 1.0
        assert row["env/all/stop/completed"] == 1.0
        assert row["env/all/tau2/termination/user_stop"] == 1.0
    assert any(key.startswith("test/") for row in rows for key in row)
    assert (log / "checkpoints.jsonl").exists()
