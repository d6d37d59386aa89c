"""An episode as chat messages and tools, which each format then spells in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.shown import NotComparable, ShownConversation

if TYPE_CHECKING:
    from tau2_slime.inspector.trajectory import Trajectory
    from tau2_slime.tokens.calls.types import Tool


@dataclass(frozen=True)
class ChatMessage:
    """One message in OpenAI's form."""

    content: dict[str, Any]
    """``role``, ``content``, ``tool_calls`` with their arguments as mappings, ``tool_call_id``."""
    sampled: bool
    """True if the policy wrote it in this episode; the greeting and a task's history it did not."""


@dataclass(frozen=True)
class Chat:
    """What the policy saw and wrote, up to its last message."""

    messages: list[ChatMessage]
    tools: list[Tool]
    """OpenAI function schemas."""

    @classmethod
    def of(cls, trajectory: Trajectory) -> Chat:
        """Raises `inspector.shown.NotComparable` if the conversation cannot be told again."""
        shown = ShownConversation.of(trajectory)
        messages = [ChatMessage({"role": "system", "content": shown.system}, sampled=False)]
        last = shown.sampled[-1] if shown.sampled else -1
        for at in shown.seen:
            if at <= last:
                (content,) = shown.chat(at, at + 1)
                messages.append(ChatMessage(content, sampled=at in shown.sampled))
        return cls(messages, shown.tools)

    @classmethod
    def of_user(cls, trajectory: Trajectory) -> Chat:
        """What the user simulator saw and wrote, up to its last message: τ²'s own prompt, and τ²'s flipped roles.

        Raises:
            NotComparable: the conversation cannot be told again, or no model played the user.
        """
        from tau2_slime.episode import history
        from tau2_slime.episode.agents import chat_message
        from tau2_slime.episode.users import is_scripted
        from tau2_slime.inspector.database_diff import task_of
        from tau2_slime.world import tau2_compat
        from tau2_slime.world.environment import World, tool_schema

        if not trajectory.messages or trajectory.agent_type in ("solo", "llm_agent_solo"):
            raise NotComparable("nobody played the user, or the file keeps no messages")
        if is_scripted(trajectory.user_model):
            raise NotComparable("a script played the user")
        try:
            task, split = task_of(trajectory)
            messages = history.load_messages(trajectory.messages)
            world = World(trajectory.domain, split, task)
        except Exception as error:  # τ²'s and pydantic's, for what another τ² wrote
            raise NotComparable(f"the installed τ² has no such episode: {error}") from error
        given = len(world.history)
        own = [at for at, message in enumerate(messages) if message.role == "user"]
        seen = [at for at in range(own[-1] + 1 if own else 0) if history.user_sees(messages[at])]
        user = tau2_compat.build_user_simulator("", {}, world.user_tools, str(task.user_scenario))
        state = user.get_init_state(message_history=[messages[at] for at in seen])
        told = [ChatMessage({"role": "system", "content": state.system_messages[0].content}, sampled=False)]
        for at, message in zip(seen, state.flip_roles(), strict=True):
            told.append(ChatMessage(chat_message(message), sampled=at in own and at >= given))
        return cls(told, [tool_schema(tool) for tool in world.user_tools or []])
