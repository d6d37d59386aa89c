"""The tools that the tests of parsers offer, and a good call."""

from __future__ import annotations

from typing import Any

from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool("get_order", {"order_id": STRING}, ["order_id"]),
    tool("send_certificate", {"user_id": STRING, "amount": INTEGER}, ["user_id", "amount"]),
    tool("list_airports", {}, []),
]


def summary(turn: ParsedTurn) -> list[tuple[str, CallStatus]]:
    return [(call.name, call.status) for call in turn.calls]


def hermes(text: str, **kwargs: Any) -> ParsedTurn:
    return get_parser("hermes").parse(text, TOOLS, **kwargs)


GOOD = '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>'
