"""`make learn`: its verdict on made-up curves, its arithmetic, and a small run with slime's loss and the real server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning import numbered_tasks
from benchmarks.learning.verdict import Curve, Row, judge
from tau2_slime.world import domains
from tests.backends.setup_env import EnvUnavailable, backend_python

ROOT = Path(__file__).resolve().parents[1]
FORWARD = """
import torch
from tests.engine.launch_sglang import declare_torchvision_ops

declare_torchvision_ops()
from transformers import Qwen3Config, Qwen3ForCausalLM
from benchmarks.learning.forward import response_logits

torch.manual_seed(0)
model = Qwen3ForCausalLM(Qwen3Config(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, head_dim=16)).float()
sequences = [[1, 2, 3, 4, 5, 6, 7, *range(10, 10 + extra)] for extra in (3, 9, 5)] + [[1, 2, 3, 4, 5, 6, 8, 20, 21]]
lengths = [3, 7, 5, 2]
found = []
for share in (True, False):
    model.zero_grad()
    logits = response_logits(model, sequences, lengths, share=share)
    assert [tuple(one.shape) for one in logits] == [(length, 50) for length in lengths]
    sum((one ** 2).sum() for one in logits).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    found.append((torch.cat(logits), gradient))
alone = response_logits(model, sequences[1:2], lengths[1:2])[0]
for part in range(2):
    scale = found[1][part].abs().max()
    assert (found[0][part] - found[1][part]).abs().max() < 1e-5 * scale
assert (alone - found[0][0][3:10]).abs().max() < 1e-5
whole = model(torch.tensor(sequences[3:])).logits[0, -3:-1]
assert (whole - found[0][0][-2:]).abs().max() < 1e-5
"""


def curve(
    rewards: list[float], *, before: float = 0.25, after: float = 0.95, unseen: float = 0.0, **changes: Any
) -> Curve:
    """A run whose steps earned ``rewards``; ``changes`` are put into each of its steps.

    ``unseen``: reward on the tasks that no training saw, after the last step. Before the first one it is 0.
    """
    rows: list[Row] = [
        {
            **{"step": step, "reward": reward, "weight_versions": [str(step)], "difference": 1e-7},
            "train": {"train_rollout_logprob_abs_diff": 1e-7},
            **changes,
        }
        for step, reward in enumerate(rewards)
    ]
    rows[0]["evaluation"] = _evaluation(before)
    return Curve("run", [*rows, {"step": len(rewards), "evaluation": _evaluation(after, unseen)}])


def _evaluation(share: float, unseen: float = 0.0) -> dict[str, list[float]]:
    shares = {"train/a": share, "train/b": share, "held_out/c": unseen}
    return {task: [1.0] * round(100 * x) + [0.0] * (100 - round(100 * x)) for task, x in shares.items()}


RISING = [0.3, 0.6, *[0.95] * 18]
GOOD = {
    "sync": [curve(RISING, after=0.95 - seed / 100) for seed in range(4)],
    "unseen": [curve(RISING, unseen=0.7 + seed / 100) for seed in range(3)],
    "shuffle": [curve([0.2] * 4, after=0.2)],
    "context": [curve([0.3], train={"train_rollout_logprob_abs_diff": 2.5})],
    "shift": [curve([0.3], train={"train_rollout_logprob_abs_diff": 0.16})],
}


@pytest.mark.fast
def test_curves_that_learn_pass() -> None:
    assert [str(check) for check in judge(GOOD) if not check.holds] == []


@pytest.mark.fast
def test_a_short_run_need_not_reach_the_goal() -> None:
    """Eight steps, as ``--small`` takes them."""
    short = {"sync": [curve([0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.85], after=0.86 + seed / 100) for seed in range(4)]}
    checks = [str(check) for check in judge(short)]
    assert all(check.startswith("ok") for check in checks) and not any("seeds end at" in check for check in checks)
    assert any("3 of 4 seeds end at" in str(check) for check in judge(GOOD))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("kind", "runs", "claim"),
    [
        ("sync", [curve(RISING, before=0.5)], "the start lies within"),
        ("sync", [curve(RISING, before=0.05)], "the start lies within"),
        ("sync", [curve(RISING, weight_versions=["3"])], "weights are those just pushed"),
        ("sync", [curve(RISING, difference=2e-4)], "differ by less than"),
        ("async", [curve(RISING, difference=2e-4)], "differ by less than"),
        ("sync", [curve(RISING, after=0.5)], "gain's lower bound"),
        ("sync", [curve(RISING, after=value) for value in (0.95, 0.95, 0.4)], "gain's lower bound"),
        ("partial", [curve(RISING, after=0.4)], "gain's lower bound"),
        ("unseen", [curve(RISING)], "unseen: the gain's lower bound"),
        ("unseen", [curve(RISING, unseen=0.7, difference=2e-4)], "differ by less than"),
        ("unseen", [curve(RISING, unseen=0.7, weight_versions=["3"])], "weights are those just pushed"),
        ("shuffle", [curve([0.2] * 4, after=0.4)], "shuffled rewards gain less"),
        ("context", [curve([0.3])], "the fault shows"),
        ("shift", [curve([0.3])], "the fault shows"),
        ("sync", [curve([*RISING, 0.3, 0.3]) for _ in range(2)] + GOOD["sync"][:2], "3 of 4 seeds end at"),
    ],
)
def test_a_claim_that_the_curves_do_not_bear_out_fails(kind: str, runs: list[Curve], claim: str) -> None:
    failed = [check.claim for check in judge({**GOOD, kind: runs}) if not check.holds]
    assert len(failed) == 1 and claim in failed[0]


@pytest.mark.fast
def test_the_unseen_tasks_are_others_than_those_that_training_sees(tmp_path: Path) -> None:
    path = tmp_path / "numbered.json"
    seen, unseen = numbered_tasks.write(path)
    assert (seen, unseen) == numbered_tasks.write(path)  # a run that goes on must not move the line
    tasks = {task.id: task for task in domains.tasks("mock", f"file:{path}")}  # τ² can play every one
    assert tasks.keys() == {*seen, *unseen}
    wanted = [
        {action.arguments["task_id"] for action in tasks[name].evaluation_criteria.actions} for name in (*seen, *unseen)
    ]
    assert not set.union(*wanted[: len(seen)]) & set.union(*wanted[len(seen) :])


def test_the_shared_prefix_changes_neither_logits_nor_gradients() -> None:
    from tests.engine.setup_env import EngineEnvUnavailable, engine_python

    try:
        python = engine_python()
    except EngineEnvUnavailable as unavailable:
        pytest.skip(str(unavailable))
    done = subprocess.run([str(python), "-c", FORWARD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def slime_or_miles() -> tuple[str, str, list[str]]:
    """A folder with slime, an interpreter that can train with it, and the kinds of runs; without SLIME_DIR PyPI's miles,
    its fork, with the one control that takes a single step."""
    slime, python = os.environ.get("SLIME_DIR"), os.environ.get("SLIME_PYTHON") or sys.executable
    if slime:
        missing = "import megatron.core, matplotlib, torch"
        if subprocess.run([python, "-c", missing], capture_output=True, check=False).returncode:
            pytest.skip(
                f"SLIME_PYTHON ({python}) lacks torch, megatron-core or matplotlib: use .venv-learn (make learn)"
            )
        return slime, python, ["sync", "shuffle", "context", "shift"]
    try:
        miles = backend_python("miles")
    except EnvUnavailable as unavailable:
        pytest.skip(str(unavailable))
    return str(next(miles.parents[1].glob("lib/python*/site-packages"))), str(miles), ["sync", "context"]


@pytest.mark.timeout(1500)
def test_a_policy_learns_in_a_small_run(tmp_path: Path) -> None:
    slime, python, kinds = slime_or_miles()
    command = [python, "-W", "ignore", "-m", "benchmarks.learning", "--slime", slime, "--small", "--seeds", "1"]
    done = subprocess.run(
        [*command, "--kinds", *kinds, "--output-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "curves.png").stat().st_size > 10_000
