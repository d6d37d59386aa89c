"""What became of a case, as plain data: the same fields from every door and from τ² itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""key, termination, detail, blame, messages (`Message`), reward, reward_info, and what a door adds:

paid: the number that the framework got, None where it was told that there is none; asked: the last request to the policy,
as messages; tokens, loss_mask, log_probs: the whole trajectory, mask and log-probs as long as the tokens.
"""
Message = dict[str, Any]


def record_of(key: str, result: dict[str, Any], **more: Any) -> Record:
    """``result``: `InteractionResult.to_dict`."""
    return {
        "key": key,
        "termination": result["termination"],
        "detail": result["detail"],
        "blame": result.get("blame"),
        "messages": messages_of(result["messages"]),
        "reward": result["reward"],
        "reward_info": result["reward_info"],
        **more,
    }


def messages_of(dumped: Iterable[dict[str, Any]]) -> list[Message]:
    """τ² messages as they are compared: without times, costs and raw data."""
    found: list[Message] = []
    for message in dumped:
        if message["role"] == "tool":
            names = ("role", "id", "content", "requestor", "error")
            found.append({name: message.get(name) for name in names})
        else:
            calls = message.get("tool_calls")
            found.append({"role": message["role"], "content": message.get("content"), "tool_calls": calls or None})
    return found


def renamed(messages: list[Message]) -> list[Message]:
    """``messages`` with every call named by its place, and every result by the call that it stands for.

    Formats differ in whether a model can write ids; that a result carries the id of its own call is checked here.
    """
    out: list[Message] = []
    waiting: list[tuple[str, str]] = []
    for message in messages:
        if message["role"] == "tool":
            own, place = waiting.pop(0) if waiting else (message["id"], "nothing")
            assert own == message["id"], f"a result of {message['id']!r} where {own!r} was called"
            out.append({**message, "id": place})
            continue
        calls = message["tool_calls"]
        if calls:
            places = [f"{len(out)}.{position}" for position in range(len(calls))]
            waiting = [(call["id"], place) for call, place in zip(calls, places, strict=True)]
            calls = [{**call, "id": place} for call, place in zip(calls, places, strict=True)]
        out.append({**message, "tool_calls": calls})
    return out


def write(path: Path, records: Iterable[Record]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def read(path: Path) -> dict[str, Record]:
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row for row in rows}
