"""What one learning run is: the tasks, the sizes, the schedule, and the fault that a control puts in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

Mode = Literal["sync", "partial", "async"]
Control = Literal["none", "shuffle", "context", "shift"]

TRAIN = ("create_task_1", "update_task_1", "update_task_with_message_history", "impossible_task_1")
HELD_OUT = ("update_task_with_initialization_data", "update_task_with_initialization_actions")


WARM_UP = 4
"""Steps in which the learning rate rises."""


@dataclass(frozen=True)
class ModelSize:
    """A Qwen3 that two cores can train. ``vocabulary``: at most so many tokens of a BPE of its own."""

    vocabulary: int = 1536
    single_digits: bool = False
    """Every digit is a token of its own, as in Qwen's tokenizer."""
    hidden: int = 96
    layers: int = 3
    heads: int = 4
    feed_forward: int = 288


@dataclass(frozen=True)
class WarmStart:
    """How the policy is made that reinforcement learning starts from: a model, imperfect play, supervised steps on it."""

    model: ModelSize = ModelSize()
    task_split: str = "base"
    tasks: tuple[str, ...] = TRAIN
    whole: bool = False
    """Learn to predict the whole conversation after the system prompt, not the policy's own tokens alone. It teaches to
    copy: users and tools repeat what was said far more often than the policy does."""
    attempts: int = 64
    """Episodes of imperfect play for each task."""
    mistakes: float = 0.8
    """Share of the episodes with one wrong move."""
    steps: int = 140
    batch: int = 16
    rate: float = 4e-3
    seed: int = 0

    def key(self) -> str:
        """Names its results on disk: other settings, another name."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Settings:
    """One run of reinforcement learning."""

    seed: int = 1
    steps: int = 20
    mode: Mode = "sync"
    control: Control = "none"
    """``shuffle``: rewards change places within their group. ``context``: context tokens are trained on. ``shift``: the
    log-probs are off by one token."""
    groups: int = 8
    """Prompts of a rollout. Every task has as many of them."""
    group_size: int = 16
    global_batch: int = 64
    """Episodes of one optimizer step."""
    rate: float = 2.5e-4
    """AdamW's learning rate: it rises over the first steps, then falls geometrically to ``final_rate``."""
    final_rate: float = 4e-5
    temperature: float = 0.8
    """Of rollouts, loss and evaluations. A tiny model is never quite sure of a token: at 1.0 one episode in seven meets a
    token from the tail, whatever the policy has learned."""
    divide_by_std: bool = False
    """GRPO's advantages are divided by their group's standard deviation. Where a task is almost solved, its rare failures
    then weigh most, and the late steps get unsteady."""
    eval_every: int = 5
    eval_attempts: int = 16
    """Episodes of each task in one of the evaluations on the way."""
    final_attempts: int = 56
    """Episodes of each task in the evaluations before the first step and after the last one."""
    task_split: str = "base"
    train_tasks: tuple[str, ...] = TRAIN
    held_out: tuple[str, ...] = HELD_OUT
    """Tasks that neither the warm start nor reinforcement learning sees."""
    device: str = "cpu"

    def rate_at(self, step: int) -> float:
        """The learning rate of a step. Adam's first steps would be as large as its later ones on far less evidence."""
        fall: float = (self.final_rate / self.rate) ** (step / max(1, self.steps - 1))
        return self.rate * fall * min(1.0, (step + 1) / WARM_UP)
