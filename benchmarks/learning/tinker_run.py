"""The Tinker door trains against SkyRL's server of Tinker's API, on a CPU.  ``make learn-tinker``

    python -m benchmarks.learning.tinker_run SKYRL_PYTHON [--steps 8] [--output-dir runs/learning/tinker]

SKYRL_PYTHON is an interpreter with skyrl (the Makefile builds one). It starts from the warm start that ``make learn`` keeps
in ``.cache/learning``. The door runs unmodified, in its own environment. It prints the reward of each step. The end is PASS
if the last two steps earn 0.2 more than the first one, and the log-probs of sampling and training agree.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.learning.settings import TRAIN, WarmStart
from tests.backends.setup_env import backend_python
from tests.engine.cluster import free_port

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 300.0
LEAST_GAIN = 0.2
MOST_DIVERGENCE = 1e-4


@contextmanager
def skyrl(python: Path, checkpoint: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """SkyRL's server for ``checkpoint``; its URL. Leaving it ends the server and the engine that it started."""
    port = free_port()
    # Without the bounds, one step of long episodes takes more than 20 GB.
    backend = {"max_lora_adapters": 4, "max_lora_rank": 16, "train_micro_batch_size": 8, "sample_max_num_sequences": 16}
    command = [
        *(str(python), str(Path(__file__).with_name("skyrl_server.py")), "api", "--base-model", str(checkpoint)),
        *("--backend", "jax", "--backend-config", json.dumps(backend)),
        *("--checkpoints-base", str(folder / "checkpoints"), "--database-url", f"sqlite:///{folder}/skyrl.db"),
        *("--port", str(port)),
    ]
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "skyrl.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"SkyRL's server did not start; see {folder / 'skyrl.log'}")
            time.sleep(0.5)
        yield url, process
    finally:
        for number in (15, 9):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)


def _healthy(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{url}/api/v1/healthz", timeout=5) as reply:
        return int(reply.status) == 200
    return False


def train(
    url: str, server: subprocess.Popen[bytes], checkpoint: Path, folder: Path, steps: int, groups: int, size: int
) -> Iterator[dict[str, Any]]:
    """The door's own command; the cookbook's metrics of each step as they come, as long as ``server`` runs."""
    command = [
        *(str(backend_python("tinker")), "-m", "tau2_slime.backends.tinker.train", f"model_name={checkpoint}"),
        *("renderer_name=qwen3_instruct", "domains=mock", "task_split=base", f"task_ids={','.join(TRAIN)}"),
        *("eval_split=None", "eval_every=0", "save_every=0", "user_model=scripted", f"base_url={url}"),
        *(f"groups_per_batch={groups}", f"group_size={size}", f"epochs={steps * groups}", f"max_steps={steps}"),
        *("learning_rate=3e-3", "lora_rank=16", "max_tokens=256", "max_trajectory_tokens=4000"),
        f"log_path={folder / 'door'}",
    ]
    environ = {**os.environ, "TINKER_API_KEY": "tml-local", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with (folder / "door.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, cwd=ROOT)
    metrics, told = folder / "door" / "metrics.jsonl", 0
    try:
        while True:
            ended = process.poll() is not None
            lines = metrics.read_text().splitlines() if metrics.is_file() else []
            yield from (json.loads(line) for line in lines[told:])
            told = len(lines)
            if ended:
                break
            if server.poll() is not None:
                raise SystemExit(f"SkyRL's server ended with status {server.returncode}; see {folder / 'skyrl.log'}")
            time.sleep(1)
    finally:
        process.terminate()
    if process.returncode:
        raise SystemExit(f"the door ended with status {process.returncode}; see {folder / 'door.log'}")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    parser = argparse.ArgumentParser(description="The Tinker door trains against SkyRL's server, on a CPU.")
    parser.add_argument("skyrl_python", type=lambda text: Path(text).absolute(), help="interpreter with skyrl")
    parser.add_argument("--checkpoint", type=Path, help="default: the warm start of `make learn`")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--groups", type=int, default=4, help="tasks of a step (default: %(default)s)")
    parser.add_argument("--group-size", type=int, default=8, help="episodes of a task (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "runs" / "learning" / "tinker")
    options = parser.parse_args()
    checkpoint = options.checkpoint or ROOT / ".cache" / "learning" / f"warm-start-{WarmStart().key()}"
    if not checkpoint.is_dir():
        parser.error(f"{checkpoint}: no such folder; `make learn ARGS='--kinds context'` makes it")
    folder = options.output_dir.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "skyrl.log").is_file():
        parser.error(f"--output-dir {folder}: it holds something else")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rewards: list[float] = []
    divergence: list[float] = []
    with skyrl(options.skyrl_python, checkpoint.resolve(), folder) as (url, server):
        sizes = (options.steps, options.groups, options.group_size)
        steps = train(url, server, checkpoint.resolve(), folder, *sizes)
        for metrics in steps:
            rewards.append(float(metrics["env/all/reward/total"]))
            divergence.append(abs(float(metrics["optim/kl_sample_train_v1"])))
            print(
                f"step {len(rewards) - 1}, reward {rewards[-1]:.2f}, log-probs diverge by {divergence[-1]:.1e}",
                flush=True,
            )
    gain = fmean(rewards[-2:]) - rewards[0]
    print(f"gain {gain:.2f} (at least {LEAST_GAIN}), divergence {max(divergence):.1e} (less than {MOST_DIVERGENCE:g})")
    holds = gain >= LEAST_GAIN and max(divergence) < MOST_DIVERGENCE
    print("PASS" if holds else "FAIL")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
