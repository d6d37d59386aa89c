"""The W&B table of the groups that are worth a look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tau2_slime.observe.groups import COLUMNS, worth_a_look
from tests.hook_samples import failed, played


@pytest.mark.fast
def test_the_worst_and_the_most_divided_groups() -> None:
    rewards = {0: (0, 0, 0, 0), 1: (1, 0, 1, 0), 2: (1, 0, 0, 0), 3: (1, 1, 1, 1)}
    samples = [played(float(r), group=g, task=f"t{g}") for g, many in rewards.items() for r in many]
    rows = worth_a_look([*samples, failed(group=4), failed(group=3)], 5, 2)
    named = [dict(zip(COLUMNS, one, strict=True)) for one in rows]
    assert [(one["why"], one["group"]) for one in named] == [
        ("worst", "0"),
        ("worst", "2"),
        ("most divided", "1"),
        ("most divided", "2"),
    ]
    assert named[1]["task"] == "t2"
    assert (named[1]["attempts"], named[1]["solved"], named[1]["mean reward"]) == (4, 1, 0.25)


WANDB = """
import sys
from types import ModuleType
steps = ModuleType("slime.utils.metric_utils")
steps.compute_rollout_step = lambda args, rollout_id: rollout_id * 10
sys.modules["slime.utils.metric_utils"] = steps
import wandb
from tau2_slime import hooks
from tests.hook_samples import played, slime_args
wandb.init(mode="offline", dir=sys.argv[1])
samples = [played(float(i % 2), group=i // 2, task="t0") for i in range(4)]
hooks.log_train_rollout(3, slime_args(tau2={"group_table": 1}), samples, {}, 1.0)
print(wandb.run.summary["rollout/step"], wandb.run.summary["rollout/tau2/groups"]["nrows"])
wandb.finish()
"""


def test_wandb_gets_the_groups_as_a_table(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = subprocess.run([sys.executable, "-c", WANDB, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert "30 2" in done.stdout, done.stdout + done.stderr
    (file,) = tmp_path.rglob("*.table.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(COLUMNS)
    assert [row[1] for row in table["data"]] == ["worst", "most divided"]
