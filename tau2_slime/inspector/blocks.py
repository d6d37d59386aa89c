"""A trajectory as what a reader goes through: message after message, each with the tokens that stand for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.trajectory import Piece, Trajectory

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


@dataclass
class Block:
    """One thing that was said, and its tokens."""

    role: str
    """`assistant`, `user`, `tool`, or `prompt` for what stands before the first message."""
    title: str
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """``name``, ``arguments`` (JSON), ``rejected``."""
    error: bool = False
    spans: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Weight version, finish reason, latency; how many messages share these tokens."""
    message: int | None = None
    """Index in the trajectory's messages."""
    turn: int | None = None
    """Number of the sampled turn, from 1."""
    junction: str = ""
    """How the turn was joined to what follows it: `closed`, `context closer`; empty after the last one."""


def blocks_of(one: Trajectory, language: CheckpointProfile | None = None) -> list[Block]:
    """Every message in order. Without messages (a sample file keeps none): the pieces of tokens, decoded if possible."""
    if not one.messages:
        return _pieces_only(one, language)
    turns, spoken = one.turns(), one.sampled_messages()
    contexts = [piece for piece in one.pieces() if piece.kind == "context"]
    blocks: list[Block] = []
    prompt = next((piece for piece in one.pieces() if piece.kind == "prompt"), None)
    if prompt is not None:
        blocks.append(Block("prompt", "first prompt: policy, tools, first messages", spans=[prompt]))
    by_turn = {index: number for number, index in enumerate(spoken)}
    first = spoken[0] if spoken else len(one.messages)
    waiting: Piece | None = None
    for index, message in enumerate(one.messages):
        block = _message(one, index, message)
        number = by_turn.get(index)
        if number is not None:
            block.turn = number + 1
            if number < len(turns):
                block.spans = list(turns[number])
                waiting = contexts[number] if number < len(contexts) else None
                block.notes += _turn_notes(one, number, turns[number])
                if waiting is not None:
                    block.junction = _junction(one, turns[number][-1], waiting, language)
        elif index < first:
            if one.ledger is not None and _agent_sees(message):
                block.notes.append("in the first prompt")
        elif one.ledger is not None and not _agent_sees(message):
            block.notes.append("the policy does not see this")
        elif waiting is not None:
            block.spans, waiting = [waiting], None
        elif one.ledger is not None and number is None and index > first and _has_context(blocks):
            block.notes.append("its tokens are with the message before")
        blocks.append(block)
    for number in range(len(spoken), len(turns)):
        block = Block(
            "assistant", "assistant: sampled, but never a message", spans=list(turns[number]), turn=number + 1
        )
        block.notes += _turn_notes(one, number, turns[number])
        block.text = _decode(one, turns[number], language)
        blocks.append(block)
    return blocks


def _message(one: Trajectory, index: int, message: dict[str, Any]) -> Block:
    role = str(message.get("role") or "?")
    block = Block(role, role, text=str(message.get("content") or ""), message=index)
    block.error = bool(message.get("error"))
    refused = one.rejected.get(index, [])
    for position, call in enumerate(message.get("tool_calls") or []):
        arguments = json.dumps(call.get("arguments"), ensure_ascii=False)
        block.calls.append({"name": str(call.get("name")), "arguments": arguments, "rejected": position in refused})
    if role == "tool":
        asked = "user" if message.get("requestor") == "user" else "assistant"
        block.title = f"tool result for the {asked}" + (", an error" if block.error else "")
    return block


def _agent_sees(message: dict[str, Any]) -> bool:
    """`history.agent_sees` over plain data."""
    if message.get("role") == "tool":
        return message.get("requestor") != "user"
    return message.get("role") == "assistant" or not message.get("tool_calls")


def _has_context(blocks: list[Block]) -> bool:
    """The last block that has tokens is one of context: the new one shares them."""
    last = next((block for block in reversed(blocks) if block.spans), None)
    return last is not None and last.spans[0].kind == "context"


def _turn_notes(one: Trajectory, number: int, pieces: list[Piece]) -> list[str]:
    notes = []
    versions = list(dict.fromkeys(piece.weight_version for piece in pieces if piece.weight_version))
    if versions:
        notes.append(f"weights {', '.join(versions)}")
    calls = _calls_by_turn(one)
    if number < len(calls):
        reasons = [_finish(meta) for meta in calls[number]]
        notes.append("finish " + ", ".join(reason for reason in reasons if reason))
        seconds = sum(float(meta.get("e2e_latency") or 0) for meta in calls[number])
        if seconds:
            notes.append(f"{seconds:.2f} s")
    return notes


def _finish(meta: dict[str, Any]) -> str:
    reason = meta.get("finish_reason")
    return str(reason.get("type") or "") if isinstance(reason, dict) else str(reason or "")


def _calls_by_turn(one: Trajectory) -> list[list[dict[str, Any]]]:
    """The server's calls, turn by turn: one that was aborted is continued by the next."""
    out: list[list[dict[str, Any]]] = []
    going_on = False
    for meta in one.generations:
        if going_on:
            out[-1].append(meta)
        else:
            out.append([meta])
        going_on = _finish(meta) == "abort"
    return out


def _junction(one: Trajectory, last: Piece, context: Piece, language: CheckpointProfile | None) -> str:
    """Whether the model closed its turn, or the template's closer had to be appended."""
    if language is None:
        return "junction"
    closers = set(language.delta.template.closers.values())
    if one.tokens[context.start] in closers:
        return "closer appended"
    return "closed" if one.tokens[last.stop - 1] in closers else "junction"


def _pieces_only(one: Trajectory, language: CheckpointProfile | None) -> list[Block]:
    names = {"prompt": "first prompt", "sampled": "assistant", "context": "appended: what the policy was told next"}
    blocks = []
    turn = 0
    for piece in one.pieces():
        role = {"sampled": "assistant"}.get(piece.kind, "prompt")
        block = Block(role, names.get(piece.kind, piece.kind), spans=[piece])
        block.text = _decode(one, [piece], language) if piece.kind != "prompt" else ""
        if piece.kind == "sampled":
            turn += 1
            block.turn = turn
            block.notes = _turn_notes(one, turn - 1, [piece])
        blocks.append(block)
    if language is None and one.response:
        blocks.append(Block("prompt", "response as text", text=one.response))
    return blocks


def _decode(one: Trajectory, pieces: list[Piece], language: CheckpointProfile | None) -> str:
    if language is None:
        return ""
    return language.delta.template.decode([t for piece in pieces for t in one.tokens[piece.start : piece.stop]])
