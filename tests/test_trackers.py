"""The hooks' metrics in the real W&B and the real TensorBoard, through slime's own logging, beside slime's own metrics."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import importlib, importlib.util, json, sys
from types import ModuleType, SimpleNamespace

if importlib.util.find_spec("ray") is None:  # older versions import it beside what is used here
    sys.modules["ray"] = ModuleType("ray")

import wandb  # the real one: it is imported before anything could stand in for it

def slimes(name):  # in slime.utils up to v0.3.1
    try:
        return importlib.import_module(f"slime.observability.{name}")
    except ModuleNotFoundError:
        return importlib.import_module(f"slime.utils.{name}")

slimes("metric_utils")
logging_utils = slimes("logging_utils")
from tau2_slime import hooks
from tau2_slime.slime_adapter.sample import StandaloneSample

folder = sys.argv[1]
args = SimpleNamespace(
    use_wandb=True, use_tensorboard=True, tb_project_name="tau2", tb_experiment_name="test", wandb_mode="offline",
    wandb_project="tau2", wandb_group="test", wandb_team=None, wandb_key=None, wandb_host=None, wandb_dir=folder,
    wandb_run_id=None, wandb_random_suffix=False, wandb_always_use_train_step=False, rank=0, tau2=None, eval_datasets=None,
    n_samples_per_eval_prompt=2, log_passrate=False, rollout_batch_size=1, n_samples_per_prompt=2, global_batch_size=2,
    use_critic=False,
)
(logging_utils if hasattr(logging_utils, "init_tracking") else slimes("tracking_utils")).init_tracking(args)

def sample(reward):
    return StandaloneSample(
        tokens=[1, 2, 3], response_length=2, loss_mask=[1, 0], reward=reward, status=StandaloneSample.Status.COMPLETED,
        group_index=0, metadata={"tau2": {
            "domain": "mock", "task_split": "base", "task_id": "create_task_1", "agent_type": "llm",
            "user_model": "openai/a", "termination": "user_stop", "blame": "agent", "excluded": False,
            "official_reward": reward, "stats": {"agent_turns": 3, "user_calls": 2, "user_time": 1.0},
        }},
    )

pair = [sample(1.0), sample(0.0)]
assert hooks.log_train_rollout(3, args, pair, None, 1.0) is False
logging_utils.log(args, {"rollout/reward_of_slime": 0.5, "rollout/step": 3}, step_key="rollout/step")
data = {"airline": {"rewards": [1.0, 0.0], "truncated": [False, False], "samples": pair}}
assert hooks.log_eval_rollout(3, args, data, None) is False
logging_utils.log(args, {"eval/airline": 0.5, "eval/step": 3}, step_key="eval/step")
summary = dict(wandb.run.summary)
wandb.finish()
print("ANSWER " + json.dumps({k: v for k, v in summary.items() if isinstance(v, (int, float))}))
"""


def test_metrics_reach_both_trackers_beside_slimes_own(slime: str, python: str, tmp_path: Path) -> None:
    probe = subprocess.run([python, "-c", "import wandb, tensorboard"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"{python} lacks wandb or tensorboard (pip install wandb tensorboard)")
    done = subprocess.run(
        [python, "-c", PROGRAM, str(tmp_path)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TAU2_"))},
            "PYTHONPATH": os.pathsep.join([str(ROOT), slime]),
            "TENSORBOARD_DIR": str(tmp_path / "tensorboard"),
        },
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.split("ANSWER ")[-1])
    assert summary["rollout/reward_of_slime"] == summary["eval/airline"] == 0.5
    assert summary["rollout/tau2/reward"] == 0.5
    assert summary["rollout/tau2/domain/mock/reward"] == 0.5
    assert summary["eval/airline/tau2/pass@1"] == 0.5
    assert summary["eval/airline/tau2/pass@2"] == 1.0
    assert summary["eval/airline/tau2/pass_hat_2"] == 0.0

    reader = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print("ANSWER " + json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}))
"""
    read = subprocess.run(
        [python, "-c", reader, str(tmp_path / "tensorboard")], capture_output=True, text=True, timeout=300
    )
    scalars = json.loads(read.stdout.split("ANSWER ")[-1])
    assert [value for _, value in scalars["rollout/tau2/reward"]] == [0.5]
    assert [value for _, value in scalars["eval/airline/tau2/pass_hat_2"]] == [0.0]
    assert scalars["eval/airline"] and scalars["rollout/reward_of_slime"], "slime's own are there too"
