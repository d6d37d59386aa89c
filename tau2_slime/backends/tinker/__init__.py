"""τ² as environments of tinker-cookbook's reinforcement learning. Needs the extra `tinker`.

``python -m tau2_slime.backends.tinker.train`` trains with them. The names are imported when they are used, because the
cookbook takes seconds to import and brings torch.

Example (the first observation of one of τ²'s mock tasks, with the package's own small tokenizer; give the name of your
model instead, and leave ``renderer_name`` out):

    >>> import asyncio
    >>> from tau2_slime.backends.tinker import Tau2DatasetBuilder
    >>> from tau2_slime.local.tokenizer import local_checkpoint
    >>> build = Tau2DatasetBuilder(
    ...     model_name=str(local_checkpoint()), renderer_name="qwen3_instruct", domains=["mock"], task_split="base",
    ...     eval_split=None, user_model="scripted", groups_per_batch=4, group_size=2,
    ... )
    >>> async def first_observation():
    ...     dataset, _ = await build()
    ...     group = dataset.get_batch(0)[0]
    ...     env, other = await group.make_envs()
    ...     observation, stop_ids = await env.initial_observation()
    ...     await group.cleanup()
    ...     return env.renderer.decode(observation.to_ints())
    >>> asyncio.run(first_observation()).endswith("<|im_start|>assistant\\n")
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tau2_slime.backends.tinker.dataset import Tau2Dataset, Tau2DatasetBuilder, Tau2RotatingDataset
    from tau2_slime.backends.tinker.env import (
        EpisodeFailed,
        InfrastructureFailed,
        Tau2Env,
        Tau2EnvGroupBuilder,
        UserSimulatorFailed,
    )
    from tau2_slime.backends.tinker.train_config import Tau2TrainConfig

__all__ = [
    "EpisodeFailed",
    "InfrastructureFailed",
    "Tau2Dataset",
    "Tau2DatasetBuilder",
    "Tau2Env",
    "Tau2EnvGroupBuilder",
    "Tau2RotatingDataset",
    "Tau2TrainConfig",
    "UserSimulatorFailed",
]
_MODULES = ("env", "dataset", "train_config")


def __getattr__(name: str) -> object:
    if name in __all__:
        for module in _MODULES:
            found = vars(import_module(f"{__name__}.{module}")).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
