"""τ²'s tasks as datasets of the cookbook: batches of groups, one task a group."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import chz
from tinker_cookbook.rl.types import EnvGroupBuilder, RLDataset, RLDatasetBuilder

from tau2_slime.backends.tinker.env import Tau2EnvGroupBuilder
from tau2_slime.backends.tinker.words import words_for
from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.config.settings import Tau2Config, check_keys
from tau2_slime.config.simulators import Rotation, choose
from tau2_slime.episode.setup import playable
from tau2_slime.episode.users import check_user, models_of
from tau2_slime.errors import ConfigError
from tau2_slime.runtime import run_stop
from tau2_slime.runtime.threads import offload

_NOT_HERE = {
    **dict.fromkeys(
        ("tool_call_parser", "chat_template_kwargs", "stop_mismatch", "drift_rate"), "the renderer decides"
    ),
    **dict.fromkeys(("request_timeout", "request_retries"), "the Tinker service is called by the cookbook"),
    **dict.fromkeys(("simulator_baseline", "min_valid_samples"), "the cookbook computes the advantages"),
    **dict.fromkeys(("domain", "task_split", "user_model"), "it has a field of its own here"),
}
"""Keys of `Tau2Config` that would change nothing here -> why."""


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
        """Raises ConfigError if no training episode can be played any more (a refused key, a spent budget)."""
        places = range(index * self._size, min((index + 1) * self._size, len(self._groups)))
        groups = [self._builder(self._groups[place], place) for place in places]
        reason = run_stop.reason_to_stop()
        if reason is not None and not all(group.evaluation for group in groups):
            raise ConfigError(f"this run cannot go on: {reason}")
        return groups

    def __len__(self) -> int:
        return math.ceil(len(self._groups) / self._size)

    def _builder(self, group: Tau2EnvGroupBuilder, place: int) -> Tau2EnvGroupBuilder:
        return _copy(group, ())


class Tau2RotatingDataset(Tau2Dataset):
    """The same, but the environments of a group talk to ``user_models`` in turn: 8 over 3 models are 3, 3 and 2.

    The next group goes on where this one ended, so over the groups each model gets its share.
    """

    def __init__(
        self,
        groups: Sequence[Tau2EnvGroupBuilder],
        groups_per_batch: int,
        user_models: Sequence[str],
        *,
        rotation: Rotation = "within_group",
        weights: Sequence[float] = (),
        **kwargs: Any,
    ):
        """``rotation``, ``weights``: as `user_pool.choose` understands them."""
        super().__init__(groups, groups_per_batch, **kwargs)
        if not user_models:
            raise ConfigError("a rotating dataset needs at least one user model")
        self.user_models = tuple(user_models)
        self._rotation: Rotation = rotation
        self._weights = tuple(weights) or (1.0,) * len(self.user_models)

    def _builder(self, group: Tau2EnvGroupBuilder, place: int) -> Tau2EnvGroupBuilder:
        first = place * group.group_size
        chosen = [choose(self._weights, self._rotation, first + i, place) for i in range(group.group_size)]
        return _copy(group, tuple(self.user_models[i] for i in chosen))


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
    user_model: str | None = None
    """The simulator of evaluation, and of training without others. Unset: TAU2_USER_MODEL, else the default."""
    train_user_models: list[str] = chz.field(default_factory=list)
    """Simulators that the environments of a training group talk to in turn; unset: the pool of the settings, if any."""
    max_tokens: int = 2048
    max_trajectory_tokens: int | None = None
    max_tasks: int | None = None
    """Of each domain, for a short run."""
    settings: dict[str, Any] = chz.field(default_factory=dict)
    """Other keys of `Tau2Config`, for every domain."""

    async def __call__(self) -> tuple[RLDataset, RLDataset | None]:
        """Raises ConfigError for whatever a setting gets wrong: at the first rollout the cookbook may swallow it."""
        for name in ("groups_per_batch", "group_size", "epochs", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        groups = [g for domain in self.domains for g in await self._groups(domain, self.task_split, evaluation=False)]
        if not groups:
            raise ConfigError(f"no task to train on: domains={list(self.domains)}, task_split={self.task_split!r}")
        kwargs: dict[str, Any] = {"epochs": self.epochs, "seed": self.seed}
        config = groups[0].config
        pool = config.user_pool()
        dataset: RLDataset = (
            Tau2RotatingDataset(
                groups,
                self.groups_per_batch,
                [simulator.name for simulator in pool],
                rotation=config.user_rotation,
                weights=[simulator.weight for simulator in pool],
                **kwargs,
            )
            if pool
            else Tau2Dataset(groups, self.groups_per_batch, **kwargs)
        )
        tests = [
            g
            for domain in self.domains
            if self.eval_split
            for g in await self._groups(domain, self.eval_split, evaluation=True)
        ]
        return dataset, Tau2Dataset(tests, len(tests), seed=None) if tests else None

    def _config(self, domain: str, split: str) -> Tau2Config:
        check_keys(self.settings, "settings", not_here=_NOT_HERE)
        given = {**self.settings, "domain": domain, "task_split": split, "user_model": self.user_model}
        if self.train_user_models:
            given["user_model_rotation"] = tuple(self.train_user_models)
        return Tau2Config.resolve(metadata=given)

    async def _groups(self, domain: str, split: str, *, evaluation: bool) -> list[Tau2EnvGroupBuilder]:
        """One group a task. An episode with each simulator is put together, to see that it can be."""
        config = self._config(domain, split)
        kept = (await offload(playable, config, split))[: self.max_tasks]
        models = models_of(config, training=not evaluation)
        for model in models:
            await offload(check_user, config, model)
        if kept:
            task, training = str(kept[0].id), not evaluation
            users: list[str | None] = [*models] or [None]  # solo: nobody
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
        words = await offload(words_for, self.model_name, self.renderer_name)
        agent, limit = episode.setup.agent, self.max_trajectory_tokens
        system = {"role": "system", "content": agent.tau2_agent.system_prompt}
        needed = len(await offload(words.first, [system], agent.tools))
        if limit is not None and needed + self.max_tokens > limit:
            raise ConfigError(
                f"max_trajectory_tokens={limit}: policy and tools of {domain} alone are {needed} tokens, and "
                f"max_tokens={self.max_tokens} are kept free for each turn; no episode could begin"
            )
