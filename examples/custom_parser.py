"""A tool-call format of one's own: Llama 3.1's bare JSON, ``{"name": ..., "parameters": ...}`` as the whole turn.

    tau2:
      tool_call_parser: custom_parser.BareJsonParser       # this folder is on PYTHONPATH

A parser never raises: a call that it cannot read becomes a `ParsedCall` with an error that the model is shown.
"""

from __future__ import annotations

import json

from tau2_slime.tokens.calls.types import Call, CallStatus, ParsedCall, ParsedTurn, Tool


class BareJsonParser:
    """A turn is one call if it is a JSON object with a name; anything else is text."""

    name = "custom_parser.BareJsonParser"

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        text = text.strip()
        if not text.startswith("{"):
            return ParsedTurn(text or None, None)
        try:
            call = json.loads(text)
            name, arguments = call["name"], call.get("parameters", {})
        except (ValueError, KeyError, TypeError) as error:
            broken = f'not a call like {{"name": ..., "parameters": {{...}}}}: {error}'
            return ParsedTurn(None, None, [ParsedCall("", {}, CallStatus.INVALID_JSON, text, broken)])
        if name not in {tool["function"]["name"] for tool in tools}:
            unknown = f"there is no tool {name!r}"
            return ParsedTurn(None, None, [ParsedCall(name, arguments, CallStatus.UNKNOWN_TOOL, text, unknown)])
        return ParsedTurn(None, None, [ParsedCall(name, arguments, CallStatus.OK, text)])

    def format(self, calls: list[Call]) -> str:
        return "\n".join(json.dumps({"name": name, "parameters": arguments}) for name, arguments in calls)
