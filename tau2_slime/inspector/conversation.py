"""A trajectory as a reader goes through it: message after message, each with the tokens that stand for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.trajectory import TokenSpan, Trajectory

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


@dataclass(frozen=True)
class CallEntry:
    """One tool call of a message."""

    name: str
    arguments: str
    """JSON."""
    rejected: bool
    """It never reached the environment."""


@dataclass
class Entry:
    """One message of the conversation, and its tokens."""

    role: str
    """`assistant`, `user`, `tool`, or `prompt` for tokens that belong to no single message."""
    title: str
    text: str = ""
    calls: list[CallEntry] = field(default_factory=list)
    error: bool = False
    spans: list[TokenSpan] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Weight versions, finish reasons, seconds, who closed the turn, or where the tokens of this message are."""
    turn: int | None = None
    """Number of the sampled turn, from 1."""
    message: int | None = None
    """Index of the message; None for an entry that is none."""


def conversation_of(trajectory: Trajectory, language: CheckpointProfile | None = None) -> list[Entry]:
    """Every message in order, and the sampled turns that never became a message.

    A sample file may hold no messages: then there is one entry per run of tokens, with its text if ``language`` is given.
    """
    if not trajectory.messages:
        return _tokens_without_messages(trajectory, language)
    turns, sampled = trajectory.turns(), trajectory.sampled_messages()
    contexts = [span for span in trajectory.spans() if span.kind == "context"]
    turn_of = {message: turn for turn, message in enumerate(sampled)}
    turn_notes = _turn_notes(trajectory, language)
    first = sampled[0] if sampled else len(trajectory.messages)
    entries = [
        Entry("prompt", "first prompt: policy, tools, first messages", spans=[span])
        for span in trajectory.spans()
        if span.kind == "prompt"
    ]
    appended: TokenSpan | None = None  # context tokens that no message has been given yet
    for index, message in enumerate(trajectory.messages):
        entry = _entry(message, trajectory.rejected.get(index, []))
        entry.message = index
        turn = turn_of.get(index)
        if turn is not None:
            entry.turn = turn + 1
            if turn < len(turns):
                entry.spans, entry.notes = list(turns[turn]), turn_notes[turn]
                appended = contexts[turn] if turn < len(contexts) else None
        elif trajectory.ledger is None:
            pass
        elif index < first:
            entry.notes += ["in the first prompt"] if _agent_sees(message) else []
        elif not _agent_sees(message):
            entry.notes.append("the policy does not see this")
        elif appended is not None:
            entry.spans, appended = [appended], None
        elif _last_tokens_are_context(entries):
            entry.notes.append("its tokens are with the message before")
        entries.append(entry)
    for turn in range(len(sampled), len(turns)):
        text = _decode(trajectory, turns[turn], language)
        title = "assistant: sampled, but never a message"
        entries.append(Entry("assistant", title, text, spans=list(turns[turn]), notes=turn_notes[turn], turn=turn + 1))
    return entries


def _entry(message: dict[str, Any], rejected: list[int]) -> Entry:
    """The message without its tokens. ``rejected``: positions of the calls that never reached the environment."""
    role = str(message.get("role") or "?")
    entry = Entry(role, role, text=str(message.get("content") or ""), error=bool(message.get("error")))
    for position, call in enumerate(message.get("tool_calls") or []):
        arguments = json.dumps(call.get("arguments"), ensure_ascii=False)
        entry.calls.append(CallEntry(str(call.get("name")), arguments, position in rejected))
    if role == "tool":
        caller = "user" if message.get("requestor") == "user" else "assistant"
        entry.title = f"tool result for the {caller}" + (", an error" if entry.error else "")
    return entry


def _agent_sees(message: dict[str, Any]) -> bool:
    """`episode.history.agent_sees` for messages that are plain data."""
    if message.get("role") == "tool":
        return message.get("requestor") != "user"
    return message.get("role") == "assistant" or not message.get("tool_calls")


def _last_tokens_are_context(entries: list[Entry]) -> bool:
    last = next((entry for entry in reversed(entries) if entry.spans), None)
    return last is not None and last.spans[0].kind == "context"


def _turn_notes(trajectory: Trajectory, language: CheckpointProfile | None) -> list[list[str]]:
    """For each sampled turn: weight versions, finish reasons, seconds, and who closed it."""
    calls = _calls_by_turn(trajectory)
    contexts = [span for span in trajectory.spans() if span.kind == "context"]
    out = []
    for turn, spans in enumerate(trajectory.turns()):
        notes = []
        versions = dict.fromkeys(span.weight_version for span in spans if span.weight_version)
        if versions:
            notes.append(f"weights {', '.join(versions)}")
        if turn < len(calls):
            reasons = [reason for reason in map(_finish_reason, calls[turn]) if reason]
            notes += [f"finish {', '.join(reasons)}"] if reasons else []
            seconds = sum(float(call.get("e2e_latency") or 0) for call in calls[turn])
            notes += [f"{seconds:.2f} s"] if seconds else []
        if turn < len(contexts) and language is not None:
            notes.append(_closing(trajectory, spans[-1], contexts[turn], language))
        out.append(notes)
    return out


def _calls_by_turn(trajectory: Trajectory) -> list[list[dict[str, Any]]]:
    """What the server said of each call, turn by turn: a call that was aborted is continued by the next one."""
    out: list[list[dict[str, Any]]] = []
    for call in trajectory.generations:
        if out and _finish_reason(out[-1][-1]) == "abort":
            out[-1].append(call)
        else:
            out.append([call])
    return out


def _finish_reason(call: dict[str, Any]) -> str:
    reason = call.get("finish_reason")
    return str(reason.get("type") or "") if isinstance(reason, dict) else str(reason or "")


def _closing(trajectory: Trajectory, last: TokenSpan, context: TokenSpan, language: CheckpointProfile) -> str:
    """Whether the model sampled the token that closes its turn, or the template appended it."""
    closers = set(language.delta.template.closers.values())
    if trajectory.tokens[context.start] in closers:
        return "closed by the template"
    return "closed by the model" if trajectory.tokens[last.stop - 1] in closers else "not closed"


def _tokens_without_messages(trajectory: Trajectory, language: CheckpointProfile | None) -> list[Entry]:
    titles = {"prompt": "first prompt", "sampled": "assistant", "context": "appended: what the policy was told next"}
    turn_notes = iter(_turn_notes(trajectory, language))
    entries: list[Entry] = []
    turns = 0
    for spans in trajectory.runs():
        kind = spans[0].kind
        entry = Entry("assistant" if kind == "sampled" else "prompt", titles.get(kind, kind), spans=spans)
        entry.text = "" if kind == "prompt" else _decode(trajectory, spans, language)
        if kind == "sampled":
            turns += 1
            entry.turn, entry.notes = turns, next(turn_notes)
        entries.append(entry)
    if language is None and trajectory.response:
        entries.append(Entry("prompt", "response as text", trajectory.response))
    return entries


def _decode(trajectory: Trajectory, spans: list[TokenSpan], language: CheckpointProfile | None) -> str:
    if language is None:
        return ""
    return language.delta.template.decode([t for span in spans for t in trajectory.tokens[span.start : span.stop]])
