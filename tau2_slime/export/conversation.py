"""An episode as chat messages and tools, which each format then spells in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.shown import ShownConversation

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
