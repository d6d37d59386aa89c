"""What the cookbook is told of an episode that is over: numbers, which it averages, and texts, which it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING

from tinker_cookbook.rl.types import StopReason

from tau2_slime.episode.result import InteractionResult
from tau2_slime.observe.metrics import tag
from tau2_slime.outcome import Blame, Termination
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn

if TYPE_CHECKING:
    from tau2_slime.world.types import Message

STOP_REASONS = {
    Termination.AGENT_STOP: StopReason.COMPLETED,
    Termination.USER_STOP: StopReason.COMPLETED,
    Termination.MAX_STEPS: StopReason.MAX_TURNS,
    Termination.MAX_TURNS: StopReason.MAX_TURNS,
    Termination.RESPONSE_LENGTH: StopReason.MAX_TOKENS,
    Termination.CONTEXT_LENGTH: StopReason.CONTEXT_OVERFLOW,
    Termination.AGENT_ERROR: StopReason.PARSE_ERROR,
}
"""Our terminations -> the cookbook's stop reasons, where it has one. The others keep their own name."""
_TRAINED = tuple(t for t in Termination if t in STOP_REASONS or t is Termination.TOO_MANY_ERRORS)
"""How an episode that counts can end. The others raise."""
_MALFORMED = (CallStatus.INVALID_JSON, CallStatus.UNCLOSED)
_COUNTERS = ("agent_turns", "user_turns", "steps", "agent_errors", "user_errors", "user_cost", "user_retries")


def transition_metrics(result: InteractionResult) -> dict[str, float]:
    """The last transition's metrics: stop reason (the cookbook's one-hot), termination, blame, counters, reward.

    The cookbook averages a metric over the episodes that have it. So `stop/<reason>` is 1.0 wherever it occurs. A metric
    that every episode has, zeros included, becomes a share of the episodes. A metric with a domain or a simulator in its
    name becomes the mean of that domain or simulator.
    """
    stop = STOP_REASONS.get(result.termination, result.termination)
    metrics = {f"stop/{stop}": 1.0}
    metrics.update({f"tau2/termination/{t}": float(result.termination is t) for t in _TRAINED})
    metrics.update({f"tau2/blame/{b}": float(result.blame is b) for b in (Blame.AGENT, Blame.LIMIT)})
    stats = result.stats
    metrics.update({f"tau2/{name}": float(getattr(stats, name)) for name in _COUNTERS})
    metrics["tau2/malformed_calls"] = float(sum(stats.tool_calls.get(status, 0) for status in _MALFORMED))
    reward = result.reward or 0.0
    metrics.update({"tau2/reward": reward, f"tau2/reward/domain/{tag(result.domain)}": reward})
    if result.user_model:
        metrics[f"tau2/reward/user/{tag(result.user_model)}"] = reward
    own = ("custom/", "reward_part/")
    metrics.update({f"tau2/{name}": value for name, value in result.telemetry.items() if name.startswith(own)})
    return metrics


def transition_logs(result: InteractionResult, conversation: str) -> dict[str, str | int | float]:
    """The last transition's logs: task, user simulator, how it ended, the reward's parts, and `conversation_text`."""
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


def conversation_text(result: InteractionResult, turns: Sequence[ParsedTurn], given: int, cut: str = "") -> str:
    """The conversation for a reader, the user's own tool calls included: one message after the other, results below calls.

    Args:
        result: has the messages.
        turns: the policy's sampled turns, for their reasoning and their malformed calls.
        given: how many messages of the agent the conversation had before the policy's first turn.
        cut: the text of a sampled turn that did not end.
    """
    sampled = chain(repeat(None, given), turns, repeat(None))
    told = [_message_text(m, next(sampled) if m.role == "assistant" else None) for m in result.messages]
    return "\n\n".join([*told, f"agent, cut off: {cut}"] if cut else told)


def _message_text(message: Message, sampled: ParsedTurn | None) -> str:
    if message.role == "tool":
        return f"[{'error' if message.error else 'result'} for {_speaker(message.requestor)}] {message.content}"
    lines = [f"[thinks] {sampled.reasoning}"] if sampled and sampled.reasoning else []
    lines += [message.content.strip()] if message.content and message.content.strip() else []
    malformed = [call.raw if call.status in _MALFORMED else "" for call in (sampled.calls if sampled else [])]
    for call, raw in zip(message.tool_calls or [], chain(malformed, repeat("")), strict=False):
        lines.append(f"[calls] {raw or f'{call.name}({json.dumps(call.arguments, ensure_ascii=False)})'}")
    return f"{_speaker(message.role)}: " + "\n".join(lines)


def _speaker(role: str) -> str:
    return "agent" if role == "assistant" else role
