"""Tinker's door: τ² as environments of tinker-cookbook's reinforcement learning. Needs the extra `tinker`.

The names are imported when they are used, because the cookbook takes seconds and brings torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Tau2Env": "env",
    "Tau2EnvGroupBuilder": "env",
    "EpisodeFailed": "env",
    "UserSimulatorFailed": "env",
    "InfrastructureFailed": "env",
    "Tau2Dataset": "dataset",
    "Tau2RotatingDataset": "dataset",
    "Tau2DatasetBuilder": "dataset",
    "Tau2TrainConfig": "train_config",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
