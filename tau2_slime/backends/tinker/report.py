"""What the cookbook is told of an episode that is over: numbers, which it averages, and words, which it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

from tinker_cookbook.rl.types import StopReason

from tau2_slime.episode.result import InteractionResult
from tau2_slime.observe.metrics import tag
from tau2_slime.outcome import Blame, Termination
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn

STOPS = {
    Termination.AGENT_STOP: StopReason.COMPLETED,
    Termination.USER_STOP: StopReason.COMPLETED,
    Termination.MAX_STEPS: StopReason.MAX_TURNS,
    Termination.MAX_TURNS: StopReason.MAX_TURNS,
    Termination.RESPONSE_LENGTH: StopReason.MAX_TOKENS,
    Termination.CONTEXT_LENGTH: StopReason.CONTEXT_OVERFLOW,
    Termination.AGENT_ERROR: StopReason.PARSE_ERROR,
}
"""Ours -> the cookbook's, where it has one; the others keep their own name."""
_TRAINED = tuple(t for t in Termination if t in STOPS or t is Termination.TOO_MANY_ERRORS)
"""How an episode that counts can end; the others raise."""

_UNREAD = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)


def metrics_of(result: InteractionResult) -> dict[str, float]:
    """The last transition's metrics: why it stopped (the cookbook's one-hot), whose doing that was, counters.

    The cookbook averages a metric over the episodes that have it. So `stop/<reason>` is 1 wherever it occurs at all; what
    is here for every episode, zeros included, averages to a share; what has a name in it, to a mean over the named ones.
    """
    stop = STOPS.get(result.termination, result.termination)
    found = {f"stop/{stop}": 1.0}
    found.update({f"tau2/termination/{t}": float(result.termination is t) for t in _TRAINED})
    found.update({f"tau2/blame/{b}": float(result.blame is b) for b in (Blame.AGENT, Blame.LIMIT)})
    stats = result.stats
    counters = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors", "user_cost", "user_retries")
    found.update({f"tau2/{name}": float(getattr(stats, name)) for name in counters})
    malformed = sum(stats.tool_calls.get(status, 0) for status in _UNREAD)
    found["tau2/malformed_calls"] = float(malformed)
    reward = result.reward or 0.0
    found.update({"tau2/reward": reward, f"tau2/reward/domain/{tag(result.domain)}": reward})
    if result.user_model:
        found[f"tau2/reward/user/{tag(result.user_model)}"] = reward
    return found


def logs_of(result: InteractionResult, conversation: str) -> dict[str, str | int | float]:
    """The last transition's logs: which episode this is, how it ended, what τ² made of it, what was said."""
    logs: dict[str, str | int | float] = {
        "task": f"{result.domain}/{result.task_id}",
        "user_model": result.user_model,
        "end": str(result.termination),
    }
    if result.detail:
        logs["detail"] = result.detail
    parts = (result.reward_info or {}).get("reward_breakdown")
    if parts:
        logs["reward_breakdown"] = ", ".join(f"{name} {value:g}" for name, value in parts.items())
    return {**logs, "conversation": conversation}


def conversation_of(result: InteractionResult, turns: Sequence[ParsedTurn], before: int, cut: str = "") -> str:
    """What was said, thought and done, the user's own tools included: a message after the other, results below calls.

    ``turns``: what the policy sampled; ``before``: messages of the agent's side that were there before; ``cut``: what was
    sampled of a turn that did not end.
    """
    sampled = chain(repeat(None, before), turns, repeat(None))
    told = [_message(m, next(sampled) if m.role == "assistant" else None) for m in result.messages]
    return "\n\n".join([*told, f"agent, cut off: {cut}"] if cut else told)


def _message(message: Any, sampled: ParsedTurn | None) -> str:
    if message.role == "tool":
        return f"[{'error' if message.error else 'result'} for {_side(message.requestor)}] {message.content}"
    said = [f"[thinks] {sampled.reasoning}"] if sampled and sampled.reasoning else []
    said += [message.content.strip()] if message.content and message.content.strip() else []
    unread = [call.raw if call.status in _UNREAD else "" for call in (sampled.calls if sampled else [])]
    for call, raw in zip(message.tool_calls or [], chain(unread, repeat("")), strict=False):
        said.append(f"[calls] {raw or f'{call.name}({json.dumps(call.arguments, ensure_ascii=False)})'}")
    return f"{_side(message.role)}: " + "\n".join(said)


def _side(role: str) -> str:
    return {"assistant": "agent"}.get(role, role)
