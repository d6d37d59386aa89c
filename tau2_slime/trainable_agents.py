"""The agents of the earlier recipe, under the names that its users know; `episode.agents` holds them."""

from tau2_slime.episode.agents import (
    AGENT_TYPES,
    TrainableAgentMixin,
    TrainableGTAgent,
    TrainableLLMAgent,
    TrainableSoloAgent,
    agent_factory,
)
from tau2_slime.episode.result import InteractionResult
from tau2_slime.policy.sampling import Policy

__all__ = [
    "AGENT_TYPES",
    "InteractionResult",
    "Policy",
    "TrainableAgentMixin",
    "TrainableGTAgent",
    "TrainableLLMAgent",
    "TrainableSoloAgent",
    "agent_factory",
]
