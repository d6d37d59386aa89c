"""slime's own code against this package: its generate contract, and its rollout code through a harness.

SLIME_DIR names a slime checkout, SLIME_PYTHON an interpreter that has torch beside this package's dependencies, and
SLIME_HARNESS a script that drives slime's rollout code on a CPU and prints a JSON report with the keys ok and errors.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENERATE = "tau2_slime.generate_with_tau2.generate"
TASKS = ("create_task_1", "update_task_1", "update_task_with_message_history", "impossible_task_1")


def setting(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} does not name {what}")
    return value


def interpreter() -> str:
    python = os.environ.get("SLIME_PYTHON") or sys.executable
    probe = subprocess.run([python, "-c", "import torch, tau2, litellm"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"{python} lacks torch or τ²: name an interpreter that has both in SLIME_PYTHON")
    return python


def test_the_generate_contract_of_slime() -> None:
    folder = setting("SLIME_DIR", "a slime checkout")
    done = subprocess.run(
        [
            *(interpreter(), "tests/plugin_contracts/test_plugin_generate_contracts.py"),
            *("--custom-generate-function-path", GENERATE),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIME_CONTRACT_CUSTOM_GENERATE_FUNCTION_PATH": GENERATE},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.parametrize(
    "mode",
    [
        [],
        ["--partial-rollout", "--over-sampling-batch-size", "6"],
        [
            *("--no-eval", "--sglang-server-concurrency", "3", "--weight-update-every", "1.5"),
            *("--rollout-function-path", "slime.rollout.fully_async_rollout.generate_rollout_fully_async"),
        ],
    ],
    ids=["train-and-eval", "partial-rollout", "fully-async"],
)
def test_the_rollout_code_of_slime(mode: list[str], tmp_path: Path) -> None:
    folder = setting("SLIME_DIR", "a slime checkout")
    harness = setting("SLIME_HARNESS", "a script that drives slime's rollout code")
    python = interpreter()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rows = [{"prompt": task, "metadata": {"domain": "mock", "task_split": "base", "task_id": task}} for task in TASKS]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 2))
    (tmp_path / "tau2.yaml").write_text(
        f"tau2: {{user_model: openai/test, user_base_url: 'http://127.0.0.1:{port}/v1', drift_rate: 1.0}}\n"
    )
    (tmp_path / "eval.yaml").write_text(
        "eval:\n  defaults: {n_samples_per_eval_prompt: 2, max_response_len: 512}\n  datasets:\n"
        f"    - {{name: mock, path: '{tmp_path}/tasks.jsonl@[0:2]', input_key: prompt, metadata_key: metadata,\n"
        f"       custom_generate_function_path: {GENERATE}}}\n"
    )
    done = subprocess.run(
        [
            *(python, harness, "--slime-path", folder, "--plugin-path", str(ROOT), "--generate-path", GENERATE),
            *("--prompt-data", str(tmp_path / "tasks.jsonl"), "--input-key", "prompt", "--metadata-key", "metadata"),
            *("--eval-config", str(tmp_path / "eval.yaml"), "--custom-config-path", str(tmp_path / "tau2.yaml")),
            *("--hf-checkpoint", "tiny", "--router", "mock", "--mock-port", str(port), "--workdir", str(tmp_path)),
            *("--mock-policy", "tests.slime_policy.policy", "--mock-user-policy", "tests.slime_policy.user"),
            *("--rollout-batch-size", "3", "--n-samples-per-prompt", "2", "--num-rollouts", "2", *mode),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["ok"]
    statuses = {s["status"] for r in report["rollouts"] for g in r["groups"] for s in g["samples"]}
    assert "completed" in statuses
    assert statuses <= {"completed", "truncated", "failed"}
