"""The anchored delta: the text that the template writes after an assistant turn.

The template renders an assistant turn that ends in a unique sentinel, then the real new messages and the generation
prompt. What follows the sentinel, from the first closer on, is exactly what has to be appended. The rendering need not
begin with what was rendered before, so a template may rewrite earlier turns.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from tau2_slime.tokens.template.chat_template import ChatMessage, ChatTemplate, TemplateError, Tools
from tau2_slime.tokens.template.control_tokens import ControlTokenEscaper

SENTINEL = "anchor" + secrets.token_hex(8)
"""Letters and digits, which no template escapes or trims. Nobody can guess it, so no message contains it."""

DUMMY_BASE: tuple[ChatMessage, ...] = ({"role": "system", "content": "d"}, {"role": "user", "content": "d"})
"""Stands for the history where calibration has shown that the delta does not depend on it."""

DUMMY_TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {"name": "d", "description": "d", "parameters": {"type": "object", "properties": {}}},
    },
)
"""Stands for the tools in that case: rendering some fifteen real schemas is most of what a delta costs."""


def anchor_message(template: ChatTemplate, assistant: ChatMessage, escaper: ControlTokenEscaper) -> dict[str, Any]:
    """The assistant turn with the sentinel as its last visible text.

    Calls stay real (a template may repeat ids and names after them); only the last call's arguments are replaced.
    """
    calls = assistant.get("tool_calls")
    if not calls:
        return {"role": "assistant", "content": SENTINEL}
    anchored = []
    for number, call in enumerate(calls, start=1):
        function = escaper.escape_fields(call["function"], keys=("name",))
        if number == len(calls):
            function["arguments"] = {"z": SENTINEL}
        anchored.append({**escaper.escape_fields(call, keys=("id",)), "function": function})
    return {"role": "assistant", "content": template.shape.call_content, "tool_calls": anchored}


def anchored_tail(
    template: ChatTemplate,
    base: Sequence[ChatMessage],
    assistant: ChatMessage,
    new_messages: Sequence[ChatMessage],
    tools: Tools,
    escaper: ControlTokenEscaper,
) -> str:
    """What the template writes after the sentinel, up to the end of the generation prompt.

    Control tokens that the new messages spell are marks of `escaper` in it.

    Raises:
        TemplateError: the template refuses the messages, or does not write the sentinel exactly once.
        ValueError: ``new_messages`` is empty, or one of them is an assistant's.
    """
    if not new_messages:
        raise ValueError("no new messages: nothing follows the assistant's turn")
    if any(message.get("role") == "assistant" for message in new_messages):
        raise ValueError("an assistant message is sampled, never appended: new_messages may not contain one")
    anchor = anchor_message(template, assistant, escaper)
    text = template.render([*base, anchor, *map(escaper.escape_fields, new_messages)], tools)
    count = text.count(SENTINEL)
    if count != 1:
        kind = "the arguments of a tool call" if assistant.get("tool_calls") else "the text of an assistant turn"
        code = "tool-call-dropped" if assistant.get("tool_calls") and count == 0 else "sentinel"
        raise TemplateError(code, f"the chat template writes {kind} {count} times instead of once")
    return text.split(SENTINEL)[1]


def cut_at_closer(tail: str, closers: Sequence[str]) -> str:
    """`tail` from its earliest closer on; raises TemplateError("no-closer")."""
    found = [position for closer in closers if (position := tail.find(closer)) >= 0]
    if not found:
        raise TemplateError(
            "no-closer",
            f"the chat template ends an assistant turn with none of {json.dumps(list(closers), ensure_ascii=False)}; "
            f"it writes {tail[:80]!r}",
        )
    return tail[min(found) :]
