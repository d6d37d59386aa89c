"""Which writes of an episode are gold's, and which gold writes were never made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_slime.diagnosis.replay import GoldWrite
from tau2_slime.diagnosis.story import Made


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def canonical(requestor: str, name: str, arguments: Mapping[str, Any]) -> str:
    """Equal for calls that ask for the same: numbers by value, lists in any order, but paired lists together."""
    plain = {key: _plain(value) for key, value in arguments.items() if value is not None}
    old, new = plain.get("item_ids"), plain.get("new_item_ids")
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        plain["item_ids"] = sorted(([a, b] for a, b in zip(old, new, strict=True)), key=_canonical)
        del plain["new_item_ids"]
    plain = {key: sorted(value, key=_canonical) if isinstance(value, list) else value for key, value in plain.items()}
    return f"{requestor} {name} {json.dumps(plain, sort_keys=True, default=str)}"


def exact(requestor: str, name: str, arguments: Mapping[str, Any]) -> str:
    """Like `canonical`, with lists in their order."""
    plain = {key: _plain(value) for key, value in arguments.items() if value is not None}
    return f"{requestor} {name} {json.dumps(plain, sort_keys=True, default=str)}"


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def same_record(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if two calls' arguments name the same record: an order, a reservation, a line, a bill, else a user."""
    for key in ("order_id", "reservation_id", "line_id", "bill_id", "task_id"):
        if key in one or key in other:
            return one.get(key) == other.get(key) and key in one
    shared = {key for key in one.keys() & other.keys() if key.endswith("_id") and "payment" not in key}
    return bool(shared) and all(one[key] == other[key] for key in shared)


def leftover(made: Sequence[Made], gold: Sequence[GoldWrite]) -> tuple[list[Made], list[GoldWrite]]:
    """The effective writes that gold has in no form, and gold's that were never made; both in their order."""
    waiting: dict[str, list[GoldWrite]] = {}
    for write in gold:
        waiting.setdefault(canonical(write.requestor, write.name, write.arguments), []).append(write)
    extra = []
    for call in made:
        same = waiting.get(canonical(call.requestor, call.name, call.arguments))
        if same:
            same.pop(0)
        else:
            extra.append(call)
    missing = {id(write) for left in waiting.values() for write in left}
    return extra, [write for write in gold if id(write) in missing]


def pair_for(call: Made, missing: Sequence[GoldWrite]) -> GoldWrite | None:
    """The gold write of the same tool that was left out: on the same record, else any."""
    same = [write for write in missing if (write.requestor, write.name) == (call.requestor, call.name)]
    return next((write for write in same if same_record(call.arguments, write.arguments)), same[0] if same else None)


def other_tool_for(call: Made, missing: Sequence[GoldWrite]) -> GoldWrite | None:
    """The gold write of another tool on the same record that was left out."""
    for write in missing:
        if (
            write.requestor == call.requestor
            and write.name != call.name
            and same_record(call.arguments, write.arguments)
        ):
            return write
    return None
