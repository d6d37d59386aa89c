"""The cookbook's whole training loop, a few steps: only the service behind it is ours."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tinker
from tinker_cookbook.rl import train
from tinker_cookbook.rl.rollouts import set_rollout_executor

from tau2_slime.backends.tinker import Tau2TrainConfig
from tau2_slime.backends.tinker import train as command
from tests.backends.tinker.fake_service import FakeService

DEAD = {"name": "dead", "model": "openai/none", "base_url": "http://127.0.0.1:9/v1"}
ALIVE = {"name": "alive", "model": "scripted"}


class Run:
    """`main` with the defaults of the command line, but for size; what it left behind."""

    def __init__(self, model: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.service, self.folder = FakeService(model), folder
        monkeypatch.setattr(tinker, "ServiceClient", self.service)
        monkeypatch.setenv("TINKER_API_KEY", "tml-none")
        monkeypatch.setenv("TAU2_USER_RETRIES", "0")
        monkeypatch.setenv("TAU2_USER_PATIENCE", "0")

    def main(self, *arguments: str, **settings: Any) -> None:
        given = {
            **{"model_name": self.service.model, "renderer_name": "qwen3_instruct", "log_path": str(self.folder)},
            **{"domains": "mock", "task_split": "base", "user_model": "scripted", "eval_split": "None"},
            **{"max_tasks": 1, "groups_per_batch": 1, "group_size": 4, "epochs": 4, **settings},
        }
        command.main([f"{key}={value}" for key, value in given.items()] + list(arguments))

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def trained(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "env/all/reward/total" in row]


@pytest.fixture
def run(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    return Run(model, tmp_path / "log", monkeypatch)


def pool(monkeypatch: pytest.MonkeyPatch, *simulators: dict[str, Any], rotation: str = "within_group") -> None:
    monkeypatch.setenv("TAU2_USER_SIMULATORS", json.dumps(simulators))
    monkeypatch.setenv("TAU2_USER_ROTATION", rotation)


def test_grpo_learns_to_do_what_tau2_rewards(run: Run) -> None:
    run.main(group_size=6, eval_split="base", eval_every=3, save_every=2)
    service = run.service
    assert service.losses == ["importance_sampling"] * 4 and [len(data) for data in service.batches] == [6] * 4
    assert (
        len(service.history) == 5 and service.history[-1] > service.history[0]
    )  # gold is played more often than before
    assert {sampler.theta for sampler in service.samplers} >= set(
        service.history[:4]
    )  # each batch by the newest weights
    assert [row["env/all/total_episodes"] for row in run.trained] == [6] * 4
    for row in run.trained:
        shares = {k: v for k, v in row.items() if k.startswith(("env/all/tau2/blame", "env/all/tau2/termination"))}
        assert sum(v for k, v in shares.items() if "/blame/" in k) == sum(shares.values()) / 2 == 1.0
        assert row["env/all/stop/completed"] == row["env/all/tau2/termination/user_stop"] == 1.0
        assert row["env/all/tau2/reward/domain/mock"] == row["env/all/reward/total"]
    (summaries,) = (run.folder / "iteration_000003").glob("train_rollout_summaries.jsonl")
    kept = [json.loads(line)["steps"][-1] for line in summaries.read_text().splitlines()]
    assert len(kept) == 6  # every episode, and what was said in it
    for step in kept:
        assert ("[calls] create_task(" in step["logs"]["conversation"]) == (step["reward"] == 1.0)
    evaluated = [row["test/env/all/total_episodes"] for row in run.rows if "test/env/all/total_episodes" in row]
    assert len(evaluated) >= 2 and set(evaluated) == {1}
    assert (run.folder / "checkpoints.jsonl").exists()


def test_shares_over_different_ends(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log says of a batch in which some episodes reach a limit."""
    monkeypatch.setenv(
        "TAU2_MAX_TURNS", "3"
    )  # the gold play of the one task needs 3 messages, that of the other 4 or more
    run.main(max_tasks=3, groups_per_batch=3, epochs=1)
    (row,) = run.trained
    kinds = {key.rsplit("/", 1)[1]: value for key, value in row.items() if "/tau2/termination/" in key}
    assert sum(kinds.values()) == pytest.approx(1.0) and 0 < kinds["max_turns"] < 1
    assert row["env/all/tau2/blame/limit"] == kinds["max_turns"]
    assert row["env/all/tau2/blame/agent"] == pytest.approx(1 - kinds["max_turns"])


def test_a_group_whose_simulator_is_dead_is_dropped_and_the_others_are_trained_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool(monkeypatch, ALIVE, DEAD, rotation="across_groups")
    run.main(max_tasks=2, groups_per_batch=2, epochs=2)
    assert [len(data) for data in run.service.batches] == [4, 4]  # the live group of each batch, whole
    assert [row["env/all/total_episodes"] for row in run.trained] == [4, 4]
    assert [row["rollout_errors/groups_skipped"] for row in run.rows if "progress/batch" in row] == [1, 2]
    assert not any("reward/user/dead" in key for row in run.rows for key in row)


def test_a_batch_without_any_living_group_is_skipped_and_the_run_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool(monkeypatch, ALIVE, DEAD, rotation="across_groups")
    run.main(max_tasks=1, groups_per_batch=1, epochs=4)
    assert len(run.service.losses) == len(run.trained) == 2
    assert [row["progress/batch"] for row in run.rows if "progress/batch" in row] == [0, 1, 2, 3]
    assert [row["progress/batch"] for row in run.trained] == [0, 2]


def test_a_lost_episode_is_played_again_with_its_own_simulator(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that fails once costs a second try and nothing else, and the log says what happened."""
    from tau2_slime.errors import UserSimulatorError
    from tau2_slime.local.scripted_user import ScriptedUser

    reply, played, lost = ScriptedUser.reply, [], []

    async def once_out(self: ScriptedUser, message: Any) -> Any:
        if not lost and len(played) == 2:
            lost.append(message)
            raise UserSimulatorError("out for a moment")
        played.append(message)
        return await reply(self, message)

    monkeypatch.setattr(ScriptedUser, "reply", once_out)
    pool(monkeypatch, ALIVE, {**ALIVE, "name": "other"})
    run.main(epochs=1)
    (row,) = run.trained
    assert lost and row["rollout_errors/UserSimulatorFailed"] == row["rollout_errors/total"] == 1
    assert row["rollout_errors/groups_skipped"] == 0
    assert row["env/all/total_episodes"] == 4 and len(run.service.batches[0]) == 4


def test_a_refused_key_ends_the_run_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tau2_slime.runtime import run_stop

    refused: list[int] = []

    def after_a_batch() -> str | None:
        return "its endpoint refuses the key in NONE" if run.service.losses and not refused else None

    monkeypatch.setattr(run_stop, "reason_to_stop", after_a_batch)
    with pytest.raises(SystemExit, match="tau2_slime: this run cannot go on: its endpoint refuses the key in NONE"):
        run.main()
    assert len(run.service.losses) == 1


def test_a_run_goes_on_from_its_last_checkpoint(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(epochs=2, save_every=1)
    first, weights = len(run.service.losses), run.service.theta
    assert first == 2
    run.main(epochs=4, save_every=1)
    assert "going on from the last checkpoint" in capsys.readouterr().err
    assert len(run.service.losses) == 4 and run.service.history[0] == weights
    assert [row["progress/batch"] for row in run.trained] == [0, 1, 2, 3]
    with pytest.raises(SystemExit, match=r"holds the checkpoints of a run with max_tasks=1.*give another log_path"):
        run.main(max_tasks=2)


def test_weights_to_start_from(run: Run) -> None:
    run.service.save("weights", "before")
    run.main(epochs=1, load_checkpoint_path="tinker://fake/weights/before")
    assert run.service.loaded == ["tinker://fake/weights/before"] and len(run.service.losses) == 1


def test_rollouts_in_processes_of_their_own(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cookbook's process pool: builders, simulators and results travel; training and evaluation do not notice."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    run = Run(str(checkpoint), tmp_path / "log", monkeypatch)
    pool(monkeypatch, ALIVE, DEAD, rotation="across_groups")
    given = {"domains": ["mock"], "task_split": "base", "eval_split": "base", "user_model": "scripted", "epochs": 1}
    settings = Tau2TrainConfig(
        **given,
        **{"model_name": str(checkpoint), "renderer_name": "qwen3_instruct", "log_path": str(run.folder)},
        **{"max_tasks": 2, "groups_per_batch": 2, "group_size": 3},
    )
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        try:
            asyncio.run(train.main(settings.build(), rollout_executor=executor))
        finally:
            set_rollout_executor(None)
    assert [len(data) for data in run.service.batches] == [3]
    (row,) = run.trained
    assert row["rollout_errors/groups_skipped"] == 1 and row["test/env/all/total_episodes"] == 2
    assert row["env/all/stop/completed"] == 1.0
