"""What a slime user can switch on, as plans; and `play`, which has one carried out in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FULLY_ASYNC_FLAGS = (
    *("--rollout-function-path", "slime.rollout.fully_async_rollout.generate_rollout_fully_async"),
    *("--eval-function-path", "tau2_slime.eval_rollout.generate_rollout"),
)
_PARTIAL = ("--partial-rollout", "--over-sampling-batch-size", "8")
_QUICK = {"latency": 0.001, "mistakes": 0.4}
_LONG = {"latency": 0.02, "chatty": True}
# Sessions of different speed, and a user who takes its time: an abort finds turns, waits and user calls half done.
_PARTIAL_PLAN = {"rollouts": 5, "user_over_http": True, "server": {**_LONG, "spread": 0.8, "user_delay": 0.3}}
_ASYNC_PLAN = {
    **{"groups": 2, "update_every": 1.0, "watched": True, "server": _LONG},
    "flags": [*FULLY_ASYNC_FLAGS, "--sglang-server-concurrency", "4"],
}
MODES: dict[str, dict[str, Any]] = {
    "train": {"rollouts": 3, "server": _QUICK},
    "eval": {"rollouts": 0, "evaluate": True, "server": _QUICK},
    "partial rollout": {**_PARTIAL_PLAN, "reload_buffer": True, "flags": _PARTIAL},
    "partial, off-policy masked": {**_PARTIAL_PLAN, "flags": (*_PARTIAL, "--mask-offpolicy-in-partial-rollout")},
    "partial, top-p and expert replay": {
        **_PARTIAL_PLAN,
        "flags": (*_PARTIAL, "--rollout-top-p", "0.9", "--use-rollout-routing-replay"),
    },
    "partial, two workers": {**_PARTIAL_PLAN, "flags": _PARTIAL, "tau2": {"rollout_workers": 2}},
    "fully-async": {**_ASYNC_PLAN, "rollouts": 4},
    "fully-async, eval beside it": {**_ASYNC_PLAN, "rollouts": 2, "eval_beside": True},
}
"""`Plan`s without the checkout and the folder."""


_CLASS_BASED = (
    "--rollout-function-path",
    "miles.rollout.inference_rollout.inference_rollout_common.InferenceRolloutFn",
)
_PARTIAL_AND_EVAL = {**_PARTIAL_PLAN, "evaluate": True}
_UPDATED = {"update_every": 0.4, "server": _LONG}
MILES_MODES: dict[str, dict[str, Any]] = {
    "partial rollout and eval": {**_PARTIAL_AND_EVAL, "flags": _PARTIAL},
    # What miles has by default since 0.1; in 0.0.2 a variable switches it on.
    "class-based, partial rollout and eval": {
        **_PARTIAL_AND_EVAL,
        "env": {"MILES_EXPERIMENTAL_ROLLOUT_REFACTOR": "1"},
        "flags": (*_PARTIAL, *_CLASS_BASED),
    },
    "updates that abort": {**_UPDATED, "pause_mode": "abort"},
    "updates that retract": {**_UPDATED, "pause_mode": "retract"},
    "updates in place": {**_UPDATED, "pause_mode": "in_place"},
}
"""`Plan`s for miles; the last three have weight updates while episodes are played."""


def has_fully_async(slime: str) -> bool:
    return Path(slime, "slime", "rollout", "fully_async_rollout.py").exists()


def soak(episodes: int) -> dict[str, Any]:
    """About that many fully-async episodes in 20 rollouts; 5 % of the calls fail, two weight updates a second."""
    return {
        **{"rollouts": 20, "groups": max(1, episodes // 40), "group_size": 2, "update_every": 0.5, "watched": True},
        "user_over_http": True,
        "flags": [*FULLY_ASYNC_FLAGS, "--sglang-server-concurrency", "32"],
        "server": {"latency": 0.004, "spread": 0.8, "chatty": True, "faults": 0.05},
    }


def play(python: str, plan: dict[str, Any], timeout: float) -> dict[str, Any]:
    """The report of ``plan`` (`drive.Run`).

    Raises:
        RuntimeError: the driver itself ended badly; the message is what it printed last.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan_file, report_file = Path(folder, "plan.json"), Path(folder, "report.json")
        plan_file.write_text(json.dumps({"folder": folder, **plan}))
        done = subprocess.run(
            [python, "-m", "tests.slime_cpu", str(plan_file), str(report_file)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        return json.loads(report_file.read_text())
