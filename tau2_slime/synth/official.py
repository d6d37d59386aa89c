"""What the product's own scoring pays on a task: for the gold calls, for doing nothing, for a transfer at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.outcome import Termination
from tau2_slime.synth.policy.rules import Call
from tau2_slime.synth.sandbox import SPLIT, gold_calls
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.domains import World

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, Task

TRANSFER = Call("transfer_to_human_agents", {"summary": "The user asks for help."})
STOP = "###STOP###"


def gold_reward(domain: str, task: Task) -> float:
    """The reward of the gold calls, with everything said that is to be communicated. Raises what τ²'s evaluator raises."""
    criteria = task.evaluation_criteria
    said = "\n".join((criteria.communicate_info if criteria is not None else None) or ["It is done."])
    return _reward(domain, task, gold_calls(task), said)


def nothing_reward(domain: str, task: Task) -> float:
    """The reward of an agent that does nothing."""
    return _reward(domain, task, [], "I am afraid that there is nothing I can do.")


def transfer_reward(domain: str, task: Task) -> float:
    """The reward of an agent that transfers at once; that of doing nothing in a domain without transfers."""
    return _reward(domain, task, [TRANSFER], "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.")


def _reward(domain: str, task: Task, calls: Sequence[Call], last_words: str) -> float:
    world, messages = conversation(domain, task, calls, last_words)
    now = tau2_compat.load().get_now()
    found = scoring.score(world, messages, {}, Termination.USER_STOP, started=now, duration=0.0)
    return float(found.reward)


def unmodified_reward(domain: str, task: Task, calls: Sequence[Call], last_words: str) -> float:
    """The reward of the same play by τ²'s own evaluator, which replays everything in environments that it builds itself."""
    world, messages = conversation(domain, task, calls, last_words)
    world.fast = None
    now = tau2_compat.load().get_now()
    found = scoring.score(world, messages, {}, Termination.USER_STOP, started=now, duration=0.0)
    return float(found.reward)


def conversation(domain: str, task: Task, calls: Sequence[Call], last_words: str) -> tuple[World, list[Message]]:
    """A played conversation: the greeting, the calls of both sides, the agent's last words, the user's good-bye.

    Calls of a tool that the domain lacks are left out. Raises what τ² raises if the initial state contradicts itself.
    """
    t = tau2_compat.load()
    world = World(domain, SPLIT, task)
    history = list((task.initial_state.message_history if task.initial_state else None) or [])
    world.set_state(history)
    messages: list[Message] = [
        *history,
        t.AssistantMessage(role="assistant", content="Hi! How can I help you today?", cost=0.0),
        t.UserMessage(role="user", content="Hello, I need some help.", cost=0.0),
    ]
    kits = {"assistant": world.environment.tools, "user": world.environment.user_tools}
    for number, call in enumerate(calls):
        kit = kits[call.requestor]
        if kit is None or not kit.has_tool(call.name):
            continue
        made = t.ToolCall(id=f"c{number}", name=call.name, arguments=dict(call.arguments), requestor=call.requestor)
        speaker, role = (t.UserMessage, "user") if call.requestor == "user" else (t.AssistantMessage, "assistant")
        messages.append(speaker(role=role, content=None, tool_calls=[made], cost=0.0))
        messages.append(world.call(made)[0])
    messages.append(t.AssistantMessage(role="assistant", content=last_words, cost=0.0))
    messages.append(t.UserMessage(role="user", content=STOP, cost=0.0))
    return world, messages
