"""Settings, user simulators, names of secrets, reward shaping."""

from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.config.settings import Tau2Config
from tau2_slime.config.simulators import Price, Simulator

__all__ = ["Price", "RewardShaping", "Simulator", "Tau2Config"]
