"""τ²'s tasks as datasets of the cookbook: batches of groups, one task a group."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Sequence
from typing import Any

import chz
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset, RLDatasetBuilder

from tau2_slime import assembly
from tau2_slime.backends.tinker.env import Tau2EnvGroupBuilder
from tau2_slime.backends.tinker.words import words_for
from tau2_slime.config import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.offload import offload
from tau2_slime.world import domains, scoring

logger = logging.getLogger(__name__)


class Tau2Dataset(RLDataset):
    """Every task once an epoch, in an order that ``seed`` decides; every group talks to one fixed simulator."""

    def __init__(
        self, groups: Sequence[Tau2EnvGroupBuilder], groups_per_batch: int, *, epochs: int = 1, seed: int | None = 0
    ) -> None:
        """``groups``: one per task. ``seed`` None: their own order."""
        self._groups: list[Tau2EnvGroupBuilder] = []
        for epoch in range(epochs):
            order = list(groups)
            if seed is not None:
                random.Random(f"{seed}/{epoch}").shuffle(order)
            self._groups += order
        self._size = groups_per_batch

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        chosen = self._groups[index * self._size : (index + 1) * self._size]
        return [self._builder(group) for group in chosen]

    def __len__(self) -> int:
        return math.ceil(len(self._groups) / self._size)

    def _builder(self, group: Tau2EnvGroupBuilder) -> Tau2EnvGroupBuilder:
        return _copy(group, ())


class Tau2RotatingDataset(Tau2Dataset):
    """The same, but the environments of a group talk to ``user_models`` in turn: 8 over 3 models are 3, 3 and 2."""

    def __init__(
        self, groups: Sequence[Tau2EnvGroupBuilder], groups_per_batch: int, user_models: Sequence[str], **kwargs: Any
    ):
        super().__init__(groups, groups_per_batch, **kwargs)
        if not user_models:
            raise ConfigError("a rotating dataset needs at least one user model")
        self.user_models = tuple(user_models)

    def _builder(self, group: Tau2EnvGroupBuilder) -> Tau2EnvGroupBuilder:
        return _copy(group, self.user_models)


def _copy(group: Tau2EnvGroupBuilder, user_models: tuple[str, ...]) -> Tau2EnvGroupBuilder:
    values = {**group.__getstate__(), "user_models": user_models}
    return Tau2EnvGroupBuilder(**values)


@chz.chz
class Tau2DatasetBuilder(RLDatasetBuilder):
    """Training and evaluation data of one or several domains."""

    model_name: str
    """Whose tokenizer and renderer: the model that is trained."""
    renderer_name: str | None = None
    """Unset: the cookbook's recommendation for the model."""
    domains: list[str] = chz.field(default_factory=lambda: ["retail"])
    task_split: str = "train"
    eval_split: str | None = "test"
    """Unset: no evaluation data."""
    groups_per_batch: int = 16
    group_size: int = 8
    epochs: int = 1
    seed: int = 0
    user_model: str = "gpt-4o-mini"
    train_user_models: list[str] = chz.field(default_factory=list)
    """Simulators that a training group rotates through; evaluation always talks to ``user_model``."""
    max_tokens: int = 2048
    max_trajectory_tokens: int | None = None
    max_tasks: int | None = None
    """Of each domain, for a short run."""
    settings: dict[str, Any] = chz.field(default_factory=dict)
    """Any other key of `Tau2Config`, for every domain."""

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        """Raises ConfigError for whatever a setting gets wrong: at the first rollout the cookbook may swallow it."""
        await offload(words_for, self.model_name, self.renderer_name)
        train = [g for d in self.domains for g in await offload(self._groups, d, self.task_split, self.group_size)]
        if not train:
            raise ConfigError(f"no task to train on in {', '.join(self.domains)} ({self.task_split})")
        kwargs: dict[str, Any] = {"epochs": self.epochs, "seed": self.seed}
        training: RLDataset = (
            Tau2RotatingDataset(train, self.groups_per_batch, self.train_user_models, **kwargs)
            if self.train_user_models
            else Tau2Dataset(train, self.groups_per_batch, **kwargs)
        )
        if self.eval_split is None:
            return training, None
        tested = [g for d in self.domains for g in await offload(self._groups, d, self.eval_split, 1)]
        return training, Tau2Dataset(tested, max(1, len(tested)), seed=None)

    def _groups(self, domain: str, split: str, group_size: int) -> list[Tau2EnvGroupBuilder]:
        given = {**self.settings, "domain": domain, "task_split": split, "user_model": self.user_model}
        unknown = sorted(set(given) - set(Tau2Config.model_fields))
        if unknown:
            raise ConfigError(f"settings: unknown key {unknown[0]!r} (allowed: {', '.join(Tau2Config.model_fields)})")
        config = Tau2Config.resolve(metadata=given)
        if config.agent_type != "solo":
            for model in {self.user_model, *self.train_user_models} - {assembly.SCRIPTED}:
                assembly.user_spec(config, model).connection()
        tasks = domains.tasks(domain, split)
        kept = [t for t in tasks if config.allow_llm_judge or not scoring.needs_judge(t)]
        if len(kept) < len(tasks):
            logger.warning("%s/%s: %d tasks need an LLM judge and are left out", domain, split, len(tasks) - len(kept))
        return [
            Tau2EnvGroupBuilder(
                config=config,
                task_id=str(task.id),
                group_size=group_size,
                model_name=self.model_name,
                renderer_name=self.renderer_name,
                max_tokens=self.max_tokens,
                max_trajectory_tokens=self.max_trajectory_tokens,
            )
            for task in kept[: self.max_tasks]
        ]
