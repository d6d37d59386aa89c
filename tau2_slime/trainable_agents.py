"""The agents of the earlier recipe, under the names that its users know; `episode.agents` holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2_slime.episode.agents import AGENT_TYPES, TrainableLLMAgent
from tau2_slime.episode.result import InteractionResult
from tau2_slime.policy.sampling import Policy

if TYPE_CHECKING:
    from tau2_slime.episode.transcript import Speaker
    from tau2_slime.world.environment import World

__all__ = ["AGENT_TYPES", "InteractionResult", "Policy", "TrainableAgentMixin", "TrainableLLMAgent", "agent_factory"]

TrainableAgentMixin = TrainableLLMAgent


def agent_factory(agent_type: str, world: World, policy: Speaker) -> TrainableLLMAgent:
    """The agent of that type: ``llm``, ``solo`` or ``gt``; ``result = await agent.asolve(user, limits)`` plays its task.

    Raises:
        ValueError: an unknown type, or a task that this type of agent cannot play.
    """
    return TrainableLLMAgent(world, policy, agent_type)
