"""A Tinker service of one parameter, in this process: how likely the policy is to play the gold script.

Everything else of the training loop is the cookbook's own. As tinker's own clients do, each answers to both spellings: what
0.5 awaits as ``name_async`` and what 0.6 calls ``name``, whose future can be awaited or asked for its ``result()``. Nothing
else is answered, so that a call that nobody foresaw fails.
"""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import tinker
import torch
from tinker_cookbook import tokenizer_utils

from tests.backends.tinker.players import Player

GOLD_WORD = "create_task"
"""What only the gold play of the task calls."""


class Future:
    """Of a value that is already there."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def result(self, timeout: float | None = None) -> Any:
        return self._value

    async def result_async(self) -> Any:
        return self._value

    def __await__(self) -> Any:
        return self.result_async().__await__()


class _Client:
    """A client is its own future."""

    def result(self, timeout: float | None = None) -> Any:
        return self

    def __await__(self) -> Any:
        return Future(self).__await__()


class Sampler(_Client):
    """Samples with the weights that were current when it was made. It pickles, as tinker's does."""

    def __init__(self, model: str, theta: float, seed: int) -> None:
        self.model, self.theta = model, theta
        self._random = random.Random(seed)

    def sample(self, prompt: Any, num_samples: int, sampling_params: Any, **_: Any) -> Future:
        return Future(self._sample(prompt, sampling_params))

    async def sample_async(self, **kwargs: Any) -> Any:
        return self.sample(**kwargs).result()

    def _sample(self, prompt: Any, sampling_params: Any) -> Any:
        play = "gold" if self._random.random() < chance(self.theta) else "wrong"
        done = Player(tokenizer_utils.get_tokenizer(self.model), play).speak(prompt, sampling_params.stop)
        sequence = SimpleNamespace(
            tokens=done.tokens,
            logprobs=done.maybe_logprobs,
            stop_reason=done.stop_reason,
            sequence_id=f"sample-{self._random.random()}",
        )
        return SimpleNamespace(sequences=[sequence], prompt_cache_hit_tokens=0)


class Trainer(_Client):
    def __init__(self, service: FakeService) -> None:
        self._service = service
        self._gradient = 0.0

    def forward_backward(self, data: list[Any], loss_fn: str, **_: Any) -> Future:
        service = self._service
        service.losses.append(loss_fn)
        service.batches.append(data)
        tokenizer = tokenizer_utils.get_tokenizer(service.model)
        for datum in data:
            advantages = datum.loss_fn_inputs["advantages"].to_torch()
            targets = datum.loss_fn_inputs["target_tokens"].to_torch()
            trained = advantages != 0
            if trained.any():
                gold = GOLD_WORD in tokenizer.decode(targets[trained].tolist())
                likely = chance(service.theta)
                self._gradient += float(advantages[trained][0]) * (1 - likely if gold else -likely)
        outputs = [{"logprobs": tinker.TensorData.from_torch(torch.full((d.model_input.length,), -0.25))} for d in data]
        return Future(SimpleNamespace(loss_fn_outputs=outputs, metrics={}))

    def optim_step(self, *_: Any, **__: Any) -> Future:
        self._service.history.append(self._service.theta + self._service.rate * self._gradient)
        self._gradient = 0.0
        return Future(SimpleNamespace(metrics={}))

    def save_state(self, name: str, **_: Any) -> Future:
        return self._service.save("weights", name)

    def save_weights_for_sampler(self, name: str, **_: Any) -> Future:
        return self._service.save("sampler_weights", name)

    def create_sampling_client(self, model_path: str, **_: Any) -> Sampler:
        return self._service.sampler(self._service.saved[model_path])

    def save_weights_and_get_sampling_client(self, *_: Any, **__: Any) -> Sampler:
        return self._service.sampler(self._service.theta)

    # 0.5's spelling: a coroutine, whose value is a future for what takes long.

    async def forward_backward_async(self, *args: Any, **kwargs: Any) -> Future:
        return self.forward_backward(*args, **kwargs)

    async def optim_step_async(self, *args: Any, **kwargs: Any) -> Future:
        return self.optim_step(*args, **kwargs)

    async def save_state_async(self, *args: Any, **kwargs: Any) -> Future:
        return self.save_state(*args, **kwargs)

    async def save_weights_for_sampler_async(self, *args: Any, **kwargs: Any) -> Future:
        return self.save_weights_for_sampler(*args, **kwargs)

    async def save_weights_and_get_sampling_client_async(self, *args: Any, **kwargs: Any) -> Sampler:
        return self.save_weights_and_get_sampling_client(*args, **kwargs)


class FakeService(_Client):
    """Stands for the class `tinker.ServiceClient` and for its instance."""

    def __init__(self, model: str, rate: float = 0.5) -> None:
        self.model, self.rate = model, rate
        self.history = [0.0]
        """The parameter before the first and after each optimiser step."""
        self.losses: list[str] = []
        self.batches: list[list[Any]] = []
        """The data of each forward-backward pass."""
        self.saved: dict[str, float] = {}
        self.loaded: list[str] = []
        self.samplers: list[Sampler] = []

    def __call__(self, *_: Any, **__: Any) -> FakeService:
        return self

    def __enter__(self) -> FakeService:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    @property
    def theta(self) -> float:
        return self.history[-1]

    def sampler(self, theta: float) -> Sampler:
        self.samplers.append(Sampler(self.model, theta, seed=len(self.samplers) + 3))
        return self.samplers[-1]

    def save(self, kind: str, name: str) -> Future:
        path = f"tinker://fake/{kind}/{name}"
        self.saved[path] = self.theta
        return Future(SimpleNamespace(path=path))

    def create_lora_training_client(self, *_: Any, **__: Any) -> Trainer:
        return Trainer(self)

    def create_training_client_from_state(self, path: str, **_: Any) -> Trainer:
        self.loaded.append(path)
        self.history = [self.saved[path]]
        return Trainer(self)

    create_training_client_from_state_with_optimizer = create_training_client_from_state

    def create_rest_client(self) -> FakeService:
        return self

    def get_training_run_by_tinker_path(self, *_: Any) -> Future:
        return Future(SimpleNamespace(user_metadata={}))

    async def create_lora_training_client_async(self, *args: Any, **kwargs: Any) -> Trainer:
        return self.create_lora_training_client(*args, **kwargs)

    async def create_training_client_from_state_async(self, path: str, **kwargs: Any) -> Trainer:
        return self.create_training_client_from_state(path, **kwargs)

    async def create_training_client_from_state_with_optimizer_async(self, path: str, **kwargs: Any) -> Trainer:
        return self.create_training_client_from_state(path, **kwargs)

    async def get_training_run_by_tinker_path_async(self, *_: Any) -> Any:
        return self.get_training_run_by_tinker_path().result()


def chance(theta: float) -> float:
    return 1 / (1 + math.exp(-theta))
