"""A Tinker service of one parameter, in this process: how likely the policy is to play the gold script.

Everything else of the training loop is the cookbook's own. Tolerant: its releases call the service by other names.
"""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import tinker
import torch

from tests.backends.tinker.players import Player

GOLD_WORD = "create_task"
"""What only the gold play of the task calls."""


class FakeService:
    def __init__(self, tokenizer: Any, rate: float = 0.5) -> None:
        self.tokenizer, self.rate = tokenizer, rate
        self.theta = 0.0
        self.history = [self.theta]
        self.losses: list[str] = []
        self._gradient = 0.0
        self._rng = random.Random(3)

    def __call__(self, *_: Any, **__: Any) -> FakeService:
        return self  # stands for the class tinker.ServiceClient and for its instance

    def __enter__(self) -> FakeService:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def chance(self) -> float:
        return 1 / (1 + math.exp(-self.theta))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        async def asked(*_: Any, **__: Any) -> Any:
            if "training_client" in name or "sampling_client" in name:
                return self
            saved = SimpleNamespace(path=f"tinker://fake/{name}")
            return _Future(saved) if name.endswith("_async") else saved

        return asked

    # 0.6 drops the suffix, and what it calls is awaited once.

    async def sample(self, *args: Any, **kwargs: Any) -> Any:
        return await self.sample_async(*args, **kwargs)

    async def forward_backward(self, *args: Any, **kwargs: Any) -> Any:
        return await (await self.forward_backward_async(*args, **kwargs))

    async def optim_step(self, *args: Any, **kwargs: Any) -> Any:
        return await (await self.optim_step_async(*args, **kwargs))

    def create_sampling_client(self, *_: Any, **__: Any) -> FakeService:
        return self

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    async def sample_async(self, prompt: Any, sampling_params: Any, **_: Any) -> Any:
        play = "gold" if self._rng.random() < self.chance else "wrong"
        done = await Player(self.tokenizer, play)(prompt, sampling_params.stop)
        sequence = SimpleNamespace(
            tokens=done.tokens,
            logprobs=done.logprobs,
            stop_reason=done.stop_reason,
            sequence_id=f"sample-{self._rng.random()}",
        )
        return SimpleNamespace(sequences=[sequence], prompt_cache_hit_tokens=0)

    async def forward_backward_async(self, data: list[Any], loss_fn: str, **_: Any) -> Any:
        self.losses.append(loss_fn)
        for datum in data:
            advantages = datum.loss_fn_inputs["advantages"].to_torch()
            targets = datum.loss_fn_inputs["target_tokens"].to_torch()
            trained = advantages != 0
            if trained.any():
                gold = GOLD_WORD in self.tokenizer.decode(targets[trained].tolist())
                self._gradient += float(advantages[trained][0]) * (1 - self.chance if gold else -self.chance)
        outputs = [{"logprobs": tinker.TensorData.from_torch(torch.full((d.model_input.length,), -0.25))} for d in data]
        return _Future(SimpleNamespace(loss_fn_outputs=outputs, metrics={}))

    async def optim_step_async(self, *_: Any, **__: Any) -> Any:
        self.theta += self.rate * self._gradient
        self._gradient = 0.0
        self.history.append(self.theta)
        return _Future(SimpleNamespace(metrics={}))


class _Future:
    def __init__(self, value: Any) -> None:
        self._value = value

    async def result_async(self, *_: Any, **__: Any) -> Any:
        return self._value

    def __await__(self) -> Any:
        return self.result_async().__await__()
