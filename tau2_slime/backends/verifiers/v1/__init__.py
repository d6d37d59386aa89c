"""verifiers' v1 door (verifiers >= 0.4): a `Taskset`, an in-process `Harness`, and the `Env` that joins them."""

from tau2_slime.backends.verifiers import load_environment
from tau2_slime.backends.verifiers.v1.env import Tau2Env, Tau2EnvConfig
from tau2_slime.backends.verifiers.v1.harness import Tau2Harness, Tau2HarnessConfig
from tau2_slime.backends.verifiers.v1.taskset import Tau2Task, Tau2TaskData, Tau2Taskset, Tau2TasksetConfig

__all__ = [
    "Tau2Env",
    "Tau2EnvConfig",
    "Tau2Harness",
    "Tau2HarnessConfig",
    "Tau2Task",
    "Tau2TaskData",
    "Tau2Taskset",
    "Tau2TasksetConfig",
    "load_environment",
]
