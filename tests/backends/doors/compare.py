"""Records of a door beside τ²'s own: what differs, in words."""

from __future__ import annotations

from typing import Any

from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, renamed
from tests.backends.doors.reference import UNREADABLE, Reference


def differences(case: Case, record: Record, expected: Reference) -> list[str]:
    """Empty if ``record`` is τ²'s own, but for what is written on a call that cannot be read."""
    theirs, found = expected.record, []
    ours = _without_unreadable(renamed(record["messages"]), expected.unreadable)
    wanted = _without_unreadable(renamed(theirs["messages"]), expected.unreadable)
    for number in range(max(len(ours), len(wanted))):
        mine, its = (side[number] if number < len(side) else None for side in (ours, wanted))
        if mine != its:
            found.append(f"message {number} is {mine}, τ²'s is {its}")
            break
    if record["termination"] != theirs["termination"]:
        found.append(f"it ended with {record['termination']} ({record['detail']}), τ²'s with {theirs['termination']}")
    if theirs["reward_info"] is None:  # τ²'s evaluator raised: an assertion that raises is not met
        note = ((record["reward_info"] or {}).get("info") or {}).get("note", "")
        if record["reward"] != 0.0 or not note.startswith("not met, it raises: "):
            found.append(f"τ²'s evaluator raised, here the reward is {record['reward']}: {record['reward_info']}")
    else:
        for name in ("reward", "reward_info"):
            mine, its = without_none(record[name]), without_none(theirs[name])
            if mine != its:
                found.append(f"{name} is {mine}, τ²'s is {its}")
    wanted = record["reward"] if record["blame"] in ("agent", "limit") else None
    if record["paid"] != wanted:
        found.append(f"the framework was told {record['paid']}, the reward is {record['reward']} ({record['blame']})")
    return [f"{case.kind}, {case.domain}/{case.task_id}{' solo' if case.solo else ''} ({case.key}): {f}" for f in found]


def _without_unreadable(messages: list[dict[str, Any]], unreadable: set[str]) -> list[dict[str, Any]]:
    """What a model meant by a call that cannot be read is guessed, and each format guesses otherwise."""
    out = []
    for message in messages:
        if message["role"] == "tool" and message["id"] in unreadable:
            assert message["error"], message
            message = {**message, "content": UNREADABLE}
        elif message["role"] != "tool" and message["tool_calls"]:
            message = {**message, "content": message["content"] or None}  # some clients spell no text as an empty one
            calls = [
                {**call, "name": UNREADABLE, "arguments": {}} if call["id"] in unreadable else call
                for call in message["tool_calls"]
            ]
            message = {**message, "tool_calls": calls}
        out.append(message)
    return out


def without_none(value: Any) -> Any:
    """Plain data without what is None: doors keep τ²'s `RewardInfo` short."""
    if isinstance(value, dict):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    return [without_none(item) for item in value] if isinstance(value, list) else value


def shown(record: Record) -> list[tuple[Any, ...]] | None:
    """What a policy that is asked in messages was sent last, without the spelling of the calls it made itself.

    Of an id only whether a result bears its call's: doors differ in what they make of a call that the server gave none.
    """
    if record["asked"] is None:
        return None
    told: list[tuple[Any, ...]] = []
    waiting: list[str] = []
    for message in record["asked"]:
        calls = [call["id"] for call in message.get("tool_calls") or []]
        waiting = waiting or calls
        answers = message["role"] == "tool" and waiting.pop(0) == message["tool_call_id"]
        told.append((message["role"], (message.get("content") or "").strip() or None, answers, len(calls)))
    return told


def told_to_user(record: Record) -> list[dict[str, Any]] | None:
    """What the simulator was sent last, the blanks around texts aside."""
    if record["user_asked"] is None:
        return None
    return [{**message, "content": (message.get("content") or "").strip()} for message in record["user_asked"]]
