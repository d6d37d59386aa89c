"""τ²'s tasks as datasets of the cookbook: batches of groups, one task a group."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

import chz
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset, RLDatasetBuilder

from tau2_slime.backends.tinker.env import Tau2EnvGroupBuilder
from tau2_slime.backends.tinker.rendering import turn_renderer
from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.simulators import Rotation, choose
from tau2_slime.config.sources import check_keys
from tau2_slime.episode.setup import playable
from tau2_slime.episode.users import check_user, models_of
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.loops import offload

_WITHOUT_EFFECT = {
    **dict.fromkeys(
        ("tool_call_parser", "chat_template_kwargs", "stop_mismatch", "drift_rate"), "the renderer decides"
    ),
    **dict.fromkeys(("request_timeout", "request_retries"), "the Tinker service is called by the cookbook"),
    **dict.fromkeys(("simulator_baseline", "min_valid_samples"), "the cookbook computes the advantages"),
    **dict.fromkeys(("domain", "task_split", "user_model"), "it has a field of its own here"),
}
"""Settings of `Tau2Config` that are refused, and why each would change nothing here."""


class Tau2Dataset(RLDataset):
    """Every task once an epoch. Every group talks to one fixed user simulator."""

    def __init__(
        self, groups: Sequence[Tau2EnvGroupBuilder], groups_per_batch: int, *, epochs: int = 1, seed: int | None = 0
    ) -> None:
        """``groups``: one per task. ``seed``: decides the order of each epoch; None keeps the order of ``groups``."""
        self._groups: list[Tau2EnvGroupBuilder] = []
        for epoch in range(epochs):
            order = list(groups)
            if seed is not None:
                random.Random(f"{seed}/{epoch}").shuffle(order)
            self._groups += order
        self._groups_per_batch = groups_per_batch

    def get_batch(self, index: int) -> Sequence[EnvGroupBuilder]:
        """The groups of batch ``index``; the last batch may have fewer.

        Raises:
            ConfigError: no training episode can be played any more (a refused key, a spent budget).
        """
        first = index * self._groups_per_batch
        positions = range(first, min(first + self._groups_per_batch, len(self._groups)))
        groups = [self._with_simulators(self._groups[position], position) for position in positions]
        reason = run_stop.reason_to_stop()
        if reason is not None and not all(group.evaluation for group in groups):
            raise ConfigError(f"this run cannot go on: {reason}")
        return groups

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self._groups) / self._groups_per_batch)

    def _with_simulators(self, group: Tau2EnvGroupBuilder, position: int) -> Tau2EnvGroupBuilder:
        """A fresh copy of ``group``, which is number ``position`` over all epochs."""
        return dataclasses.replace(group, user_models=())


class Tau2RotatingDataset(Tau2Dataset):
    """Every task once an epoch. The environments of a group talk to several user simulators in turn.

    8 environments over 3 simulators are 3, 3 and 2. The next group goes on where the last one ended, so every simulator
    gets its share over the groups.
    """

    def __init__(
        self,
        groups: Sequence[Tau2EnvGroupBuilder],
        groups_per_batch: int,
        user_models: Sequence[str],
        *,
        rotation: Rotation = "within_group",
        weights: Sequence[float] = (),
        epochs: int = 1,
        seed: int | None = 0,
    ) -> None:
        """``rotation``, ``weights``: as `simulators.choose` has them; no weights are equal weights.

        Raises:
            ConfigError: ``user_models`` is empty.
        """
        super().__init__(groups, groups_per_batch, epochs=epochs, seed=seed)
        if not user_models:
            raise ConfigError("a rotating dataset needs at least one user model")
        self.user_models = tuple(user_models)
        self._rotation: Rotation = rotation
        self._weights = tuple(weights) or (1.0,) * len(self.user_models)

    def _with_simulators(self, group: Tau2EnvGroupBuilder, position: int) -> Tau2EnvGroupBuilder:
        first = position * group.group_size
        chosen = [choose(self._weights, self._rotation, first + i, position) for i in range(group.group_size)]
        return dataclasses.replace(group, user_models=tuple(self.user_models[i] for i in chosen))


@chz.chz
class Tau2DatasetBuilder(RLDatasetBuilder):
    """Training and evaluation data of one or several domains."""

    model_name: str
    """The model that is trained: it decides the tokenizer and the renderer."""
    renderer_name: str | None = None
    """None: the cookbook's recommendation for the model."""
    domains: list[str] = chz.field(default_factory=lambda: ["retail"])
    task_split: str = "train"
    eval_split: str | None = "test"
    """None: no evaluation data."""
    groups_per_batch: int = 16
    """Tasks of one batch."""
    group_size: int = 8
    """Episodes of one task in a batch."""
    epochs: int = 1
    seed: int = 0
    """Decides the order of the tasks."""
    user_model: str | None = None
    """The simulator of evaluation, and of training without others. None: TAU2_USER_MODEL, else the default."""
    train_user_models: list[str] = chz.field(default_factory=list)
    """Simulators that the episodes of a training group talk to in turn. Empty: the pool of the settings, if any."""
    max_tokens: int = 2048
    """Tokens that one turn may sample."""
    max_trajectory_tokens: int | None = None
    """Tokens of one episode, prompt included. None: no limit."""
    task_ids: list[str] = chz.field(default_factory=list)
    """The training tasks, by id. Empty: all of the split."""
    max_tasks: int | None = None
    """Tasks of each domain, from the first, for a short run. None: all."""
    settings: dict[str, Any] = chz.field(default_factory=dict)
    """Other settings of `Tau2Config`, for every domain."""

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        """Training data, and evaluation data if `eval_split` is given.

        An episode with every simulator is put together first. The cookbook would swallow its error at the first rollout.

        Raises:
            ConfigError: a field or a setting is wrong, or a simulator's key is not set.
        """
        for name in ("groups_per_batch", "group_size", "epochs", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        groups = [g for domain in self.domains for g in await self._groups(domain, self.task_split, evaluation=False)]
        unknown = sorted(set(self.task_ids) - {group.task_id for group in groups})
        if unknown:
            raise ConfigError(
                f"task_ids: {', '.join(unknown)}: no such task that can be played in task_split={self.task_split!r} of "
                f"{', '.join(self.domains)}"
            )
        if not groups:
            raise ConfigError(f"no task to train on: domains={list(self.domains)}, task_split={self.task_split!r}")
        config = groups[0].config
        pool = config.user_pool
        dataset = (
            Tau2RotatingDataset(
                groups,
                self.groups_per_batch,
                [simulator.name for simulator in pool],
                rotation=config.user_rotation,
                weights=[simulator.weight for simulator in pool],
                epochs=self.epochs,
                seed=self.seed,
            )
            if pool
            else Tau2Dataset(groups, self.groups_per_batch, epochs=self.epochs, seed=self.seed)
        )
        tests = [
            g
            for domain in self.domains
            if self.eval_split
            for g in await self._groups(domain, self.eval_split, evaluation=True)
        ]
        return dataset, Tau2Dataset(tests, len(tests), seed=None) if tests else None

    def _config(self, domain: str, split: str) -> Tau2Config:
        check_keys(self.settings, "settings", Tau2Config.model_fields, not_here=_WITHOUT_EFFECT)
        given = {**self.settings, "domain": domain, "task_split": split, "user_model": self.user_model}
        if self.train_user_models:
            given["user_model_rotation"] = tuple(self.train_user_models)
        return Tau2Config.resolve(metadata=given)

    async def _groups(self, domain: str, split: str, *, evaluation: bool) -> list[Tau2EnvGroupBuilder]:
        """One group per task, after a check that the first task can be played with every simulator."""
        config = self._config(domain, split)
        tasks = await offload(playable, config, split)
        if self.task_ids and not evaluation:
            tasks = [task for task in tasks if str(task.id) in self.task_ids]
        kept = tasks[: self.max_tasks]
        models = models_of(config, training=not evaluation)
        for model in models:
            await offload(check_user, config, model)
        if kept:
            task, training = str(kept[0].id), not evaluation
            users: list[str | None] = [*models] or [None]  # solo play has no user
            episodes = [
                await TurnEpisode.create(config, task_id=task, user_model=user, training=training) for user in users
            ]
            await self._check_room(episodes[0], domain)
        return [
            Tau2EnvGroupBuilder(
                config=config,
                task_id=str(task.id),
                group_size=1 if evaluation else self.group_size,
                model_name=self.model_name,
                renderer_name=self.renderer_name,
                max_tokens=self.max_tokens,
                max_trajectory_tokens=self.max_trajectory_tokens,
                evaluation=evaluation,
            )
            for task in kept
        ]

    async def _check_room(self, episode: TurnEpisode, domain: str) -> None:
        """Raises ConfigError if no episode of the domain could begin: the cookbook fails on a batch without any turn."""
        renderer = await offload(turn_renderer, self.model_name, self.renderer_name)
        agent, limit = episode.setup.agent, self.max_trajectory_tokens
        needed = len(await offload(renderer.first_prompt, agent.opening(), agent.transcript.offered))
        if limit is not None and needed + self.max_tokens > limit:
            raise ConfigError(
                f"max_trajectory_tokens={limit}: policy, tools and examples of {domain} alone are {needed} tokens, and "
                f"max_tokens={self.max_tokens} are kept free for each turn; no episode could begin"
            )
