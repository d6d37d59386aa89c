"""The settings of GRPO on τ² through Tinker, and how they become the cookbook's `rl.train.Config`."""

from __future__ import annotations

import chz
from tinker_cookbook.rl import train
from tinker_cookbook.rl.rollout_strategy import RetryOnFailure

from tau2_slime.backends.tinker.dataset import Tau2DatasetBuilder
from tau2_slime.backends.tinker.rendering import resolve_renderer_name


@chz.chz
class Tau2TrainConfig:
    """A run's settings. GRPO is `group_size` episodes per task, rewards centred in the group, importance sampling."""

    model_name: str = "Qwen/Qwen3-4B-Instruct-2507"
    renderer_name: str | None = None
    """None: the cookbook's recommendation for the model."""
    domains: list[str] = chz.field(default_factory=lambda: ["retail"])
    task_split: str = "train"
    eval_split: str | None = "test"
    """None: no evaluation."""
    user_model: str | None = None
    """The simulator of evaluation, and of training without others. Unset: TAU2_USER_MODEL, else gpt-4o-mini."""
    train_user_models: list[str] = chz.field(default_factory=list)
    """Simulators that the episodes of a training group talk to in turn. Unset: TAU2_USER_MODEL_ROTATION, if set."""
    groups_per_batch: int = 16
    """Tasks of one training step."""
    group_size: int = 8
    """Episodes of one task in a step."""
    epochs: int = 10
    task_ids: list[str] = chz.field(default_factory=list)
    """The training tasks, by id. Empty: all of the split."""
    max_tasks: int | None = None
    """Tasks of each domain, from the first. None: all."""
    seed: int = 0
    """Decides the order of the tasks."""
    max_tokens: int = 2048
    """Tokens that one turn may sample."""
    max_trajectory_tokens: int | None = 32768
    """Tokens of one episode, prompt included. None: no limit."""
    max_turns: int | None = None
    """Messages of agent and user together in one episode. Unset: TAU2_MAX_TURNS, else 30."""
    max_retries: int = 3
    """Failed episodes of a group that are played again; then the group is dropped. A failure is never a reward of 0."""

    learning_rate: float = 1e-5
    lora_rank: int = 32
    temperature: float = 1.0
    loss_fn: str = "importance_sampling"
    kl_penalty_coef: float = 0.0
    num_substeps: int = 1
    remove_constant_reward_groups: bool = False
    """Their advantage is 0 either way. True saves the price of training on them. But then the cookbook measures only the
    groups that are left, and where there are several domains it credits them to the wrong ones."""
    load_checkpoint_path: str | None = None
    eval_every: int = 10
    """Steps. 0: no evaluation."""
    save_every: int = 10
    """Steps."""
    max_steps: int | None = None
    log_path: str = "runs/tinker"
    wandb_project: str | None = None
    wandb_name: str | None = None
    base_url: str | None = None
    """Of the Tinker service. None: tinker's own default."""

    def build(self) -> train.Config:
        """The cookbook's configuration.

        Raises:
            ConfigError: `renderer_name` is None, and the cookbook recommends no renderer for the model.
        """
        renderer = resolve_renderer_name(self.model_name, self.renderer_name)
        dataset = Tau2DatasetBuilder(
            model_name=self.model_name,
            renderer_name=renderer,
            domains=self.domains,
            task_split=self.task_split,
            eval_split=self.eval_split if self.eval_every else None,
            groups_per_batch=self.groups_per_batch,
            group_size=self.group_size,
            epochs=self.epochs,
            task_ids=self.task_ids,
            max_tasks=self.max_tasks,
            seed=self.seed,
            user_model=self.user_model,
            train_user_models=self.train_user_models,
            max_tokens=self.max_tokens,
            max_trajectory_tokens=self.max_trajectory_tokens,
            settings={} if self.max_turns is None else {"max_turns": self.max_turns},
        )
        return train.Config(
            dataset_builder=dataset,
            recipe_name="tau2_slime",
            renderer_name=renderer,  # always set: the cookbook stores it with a checkpoint and compares it
            rollout_error_tolerance=RetryOnFailure(max_retries=self.max_retries),
            kl_reference_config=train.KLReferenceConfig(base_model=self.model_name) if self.kl_penalty_coef else None,
            **{name: getattr(self, name) for name in _SAME_NAME},
        )


_SAME_NAME = (
    *("model_name", "max_tokens", "learning_rate", "lora_rank", "temperature", "loss_fn"),
    *("kl_penalty_coef", "num_substeps", "remove_constant_reward_groups", "load_checkpoint_path", "eval_every"),
    *("save_every", "max_steps", "log_path", "wandb_project", "wandb_name", "base_url"),
)
"""Fields that the cookbook's configuration has under the same name."""
