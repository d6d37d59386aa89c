"""What a task gives for gold and for doing nothing: which tasks a policy can learn something from."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tau2_slime.local.gold import GoldScript, asked_part
from tau2_slime.outcome import Termination
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.domains import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, Task


@dataclass(frozen=True)
class GoldReward:
    """τ²'s reward of two plays of one task, each ended by the user."""

    gold: float
    """All gold actions in order, and everything that the task wants communicated."""
    idle: float
    """Nothing."""

    @property
    def remark(self) -> str:
        """Why the task teaches nothing, in words for a table; empty if it may."""
        if self.gold < 1.0:
            return f"its own gold actions earn {self.gold:g}"
        return "doing nothing earns 1" if self.idle >= 1.0 else ""


def gold_reward(domain: str, split: str, task: Task) -> GoldReward:
    """Play ``task`` twice in fresh environments and let τ² score it, without an LLM judge. Up to a second a task.

    Raises:
        ValueError: the task's initial state contradicts itself.
    """
    script = GoldScript.from_task(task)
    return GoldReward(_play(domain, split, task, script), _play(domain, split, task, GoldScript(())))


def _play(domain: str, split: str, task: Task, script: GoldScript) -> float:
    t = tau2_compat.load()
    world = World(domain, split, task)
    initial = task.initial_state
    messages: list[Message] = deepcopy((initial.message_history if initial is not None else None) or [])
    world.set_state(messages)
    messages = messages or [t.FIRST_AGENT_MESSAGE.model_copy()]
    for turn in script.turns:
        requestor, calls = "assistant", [turn.call] if turn.call is not None else []
        if turn.call is None:
            messages.append(t.AssistantMessage(role="assistant", content=turn.text))
            part = asked_part(turn.text or "")
            requestor, calls = "user", [] if part is None else list(script.user_parts[part])
        for name, arguments in calls:
            kind = t.AssistantMessage if requestor == "assistant" else t.UserMessage
            call = t.ToolCall(id=f"call_{len(messages)}", name=name, arguments=dict(arguments), requestor=requestor)
            messages += [kind(role=requestor, content=None, tool_calls=[call]), world.call(call)[0]]
            world.environment.sync_tools()
    messages.append(t.UserMessage(role="user", content="###STOP###"))
    if scoring.raising_assertion(world) is not None:
        return 0.0
    info = scoring.score(world, messages, {}, Termination.USER_STOP, started=t.get_now(), duration=0.0)
    return float(info.reward)
