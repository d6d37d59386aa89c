"""The policy that reinforcement learning starts from, made once and kept: model, imperfect play, supervised steps.

1. The embedded policy plays, and a tokenizer is trained on the text of its episodes.
2. It plays again in that tokenizer, wrongly in most episodes. The ledgers of these episodes are the data.
3. slime's `sft_loss` trains a random model on them, with the ledgers' own tokens and loss masks.

A start that is too good leaves nothing to learn, and one that rambles earns nothing to learn from: 0.2 to 0.35 is right.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from benchmarks.learning import tiny_model
from benchmarks.learning.forward import common_prefix
from benchmarks.learning.trainer import Episodes, Trainer

if TYPE_CHECKING:
    from argparse import Namespace

    from benchmarks.learning.settings import WarmStart
    from benchmarks.learning.slime_code import LossModule

WARM_UP = 20
"""Steps in which the learning rate rises."""


def make(recipe: WarmStart, loss: LossModule, args: Namespace, cache: Path) -> Path:
    """The folder of the checkpoint that ``recipe`` gives; made only if ``cache`` does not hold it."""
    done = cache / f"warm-start-{recipe.key()}"
    if done.is_dir():
        return done
    work = cache / f"{done.name}.part"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    random.seed(recipe.seed)
    model = _untrained(recipe, work)
    data = [row for row in play(work / "untrained", work / "imperfect", recipe) if any(row["loss_mask"])]
    rewards = [float(row["reward"]) for row in data]
    print(f"imperfect play: {len(data)} episodes, mean reward {sum(rewards) / len(rewards):.2f}", flush=True)
    if recipe.whole:
        prompt = common_prefix([row["tokens"] for row in data])
        data = [_whole(row, len(row["tokens"]) - prompt) for row in data]
    args.loss_type, args.calculate_per_token_loss = "sft_loss", True
    trainer = Trainer(loss, args, model)
    for step, episodes in enumerate(_batches(data, recipe)):
        rate = recipe.rate * min(1.0, (step + 1) / WARM_UP, max(0.1, 2 * (1 - step / recipe.steps)))
        (told,) = trainer.train(episodes, rate)
        if step % 20 == 0 or step == recipe.steps - 1:
            print(f"warm start: step {step}, loss {told['loss']:.3f}", flush=True)
    tiny_model.save(work / "trained", model, AutoTokenizer.from_pretrained(work / "untrained"))
    (work / "trained").rename(done)
    shutil.rmtree(work)
    return done


def _whole(row: dict[str, Any], length: int) -> dict[str, Any]:
    """``row`` with its last ``length`` tokens as the response, all of them trained on."""
    return {**row, "response_length": length, "loss_mask": [1] * length, "rollout_log_probs": [0.0] * length}


def _untrained(recipe: WarmStart, work: Path) -> Qwen3ForCausalLM:
    from tau2_slime.local.tokenizer import local_checkpoint
    from tests.tokens.fetch_templates import TRL, template_path

    template = template_path(TRL, "qwen3_instruct_2507")
    if not template.is_file():
        raise SystemExit(f"{template} is missing: run `python tests/tokens/fetch_templates.py`")
    local = local_checkpoint()
    words = AutoTokenizer.from_pretrained(str(local))
    texts = [
        words.decode(row["tokens"]) for row in play(local, work / "texts", recipe, attempts=min(2, recipe.attempts))
    ]
    tokenizer = tiny_model.train_tokenizer(texts, template.read_text(encoding="utf-8"), recipe.model)
    model = tiny_model.random_model(tokenizer, recipe.model, recipe.seed)
    tiny_model.save(work / "untrained", model, tokenizer)
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"model: {weights:,} weights, {len(tokenizer)} tokens", flush=True)
    return model


def play(checkpoint: Path, folder: Path, recipe: WarmStart, *, attempts: int | None = None) -> list[dict[str, Any]]:
    """Samples of the embedded policy's imperfect play in the words of ``checkpoint``, by ``tau2-slime rollout``."""
    command = [
        *(sys.executable, "-m", "tau2_slime.cli", "rollout", "--hf-checkpoint", str(checkpoint)),
        *("--domain", "mock", "--split", recipe.task_split, "--samples-per-prompt", str(attempts or recipe.attempts)),
        *("--spelling", "0", "--mistakes", str(recipe.mistakes), "--output-dir", str(folder)),
        *(part for task in recipe.tasks for part in ("--task-id", task)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"imperfect play failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    with (folder / "samples.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _batches(data: list[dict[str, Any]], recipe: WarmStart) -> Iterator[Episodes]:
    order: list[int] = []
    for _ in range(recipe.steps):
        if len(order) < recipe.batch:
            order = random.sample(range(len(data)), len(data))
        rows = [data[order.pop()] for _ in range(recipe.batch)]
        yield Episodes(
            [row["tokens"] for row in rows],
            [row["response_length"] for row in rows],
            [torch.tensor(row["loss_mask"], dtype=torch.float32) for row in rows],
            [torch.tensor(row["rollout_log_probs"]) for row in rows],
            steps=[[list(range(len(rows)))]],
        )
