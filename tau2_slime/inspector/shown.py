"""A trajectory's conversation as the policy was shown it: system prompt, tools, and the messages that reached it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.trajectory import Trajectory

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.types import Tool
    from tau2_slime.world.types import Message


class NotComparable(Exception):
    """Why an episode's conversation cannot be told again."""


def messages_of(trajectory: Trajectory) -> list[Message]:
    """τ²'s messages of the episode. Raises `NotComparable` if the file keeps none, or none that τ² can read."""
    from tau2_slime.episode import history

    if not trajectory.messages:
        raise NotComparable("the file keeps no messages")
    try:
        return history.load_messages(trajectory.messages)
    except Exception as error:  # pydantic's, τ²'s
        raise NotComparable(f"τ² cannot read the messages ({type(error).__name__})") from error


@dataclass(frozen=True)
class ShownConversation:
    """The conversation of one episode, read with the installed τ²."""

    system: str
    tools: list[Tool]
    """OpenAI function schemas."""
    messages: list[Message]
    """All of τ²'s messages, the user's own tool calls among them."""
    seen: list[int]
    """Indices of the messages that the policy was shown or wrote."""
    sampled: list[int]
    """Indices of the messages that the policy wrote, in order; the greeting and a task's history are not among them."""

    @classmethod
    def of(cls, trajectory: Trajectory) -> ShownConversation:
        """Raises `NotComparable` if the file keeps too little, or the installed τ² has no such episode."""
        from tau2_slime.episode import history

        messages = messages_of(trajectory)
        system, tools = _agent(trajectory)
        seen = [i for i, message in enumerate(messages) if history.agent_sees(message)]
        return cls(system, tools, messages, seen, trajectory.sampled_messages())

    def chat(self, start: int, stop: int) -> list[dict[str, Any]]:
        """What the policy saw of ``messages[start:stop]``, as chat templates take it."""
        from tau2_slime.episode.agents import chat_message

        return [chat_message(self.messages[i]) for i in self.seen if start <= i < stop]


def only_placeholders(trajectory: Trajectory) -> bool:
    """True if the episode had no tokens: slime needs a prompt and a response, so the sample has one of each."""
    metadata = (trajectory.sample or {}).get("metadata")
    tau2 = metadata.get("tau2") if isinstance(metadata, Mapping) else None
    counts = tau2.get("tokens") if isinstance(tau2, Mapping) else None
    return len(trajectory.tokens) == 2 and isinstance(counts, Mapping) and not any(counts.values())


def _agent(trajectory: Trajectory) -> tuple[str, list[Tool]]:
    """System prompt and tools of τ²'s own agent for the episode's task."""
    from tau2_slime.errors import ConfigError
    from tau2_slime.world import domains, tau2_compat
    from tau2_slime.world.environment import World, tool_schema

    try:
        task = domains.find_task(trajectory.domain, trajectory.task_split, task_id=trajectory.task_id)
        solo, environment = trajectory.agent_type == "solo", trajectory.environment
        world = World(trajectory.domain, trajectory.task_split, task, solo=solo, env_kwargs=environment)
        agent = tau2_compat.build_agent(trajectory.agent_type, world.agent_tools, world.policy, task)
    except (ConfigError, ValueError, KeyError) as error:
        raise NotComparable(f"the installed τ² has no such episode: {error}") from error
    return agent.system_prompt, [tool_schema(tool) for tool in agent.tools]
