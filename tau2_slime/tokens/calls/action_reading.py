"""Reading an action that a model wrote in plain text: where its reasoning ends, where the action begins, what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tau2_slime.chat.thoughts import cut_thoughts, first_block
from tau2_slime.tokens.calls.json_text import BadJson, read_json
from tau2_slime.tokens.calls.reasoning import split_reasoning
from tau2_slime.tokens.calls.types import JsonObject

_MARKER = re.compile(r"^[^\S\n]*Action:", re.MULTILINE)
_MARKER_OR_TAG = re.compile(rf"{_MARKER.pattern}|</?think>", re.MULTILINE)
_CHANNELS = ("<|channel|>", "<|start|>")
_KEYS = {"name", "arguments"}
_MOST_THOUGHTS = 16
"""Blocks of reasoning that are read one after the other; no model writes more of them before it speaks."""


def cut_reasoning(text: str, reasoning_open: bool) -> tuple[list[str], str, bool]:
    """(thoughts, what follows them, whether they never end)."""
    if not reasoning_open and text.lstrip().startswith(_CHANNELS):
        spoken = cut_thoughts(text)
        return [spoken.thoughts or ""], spoken.words, spoken.unclosed
    thoughts: list[str] = []
    if reasoning_open:
        inside, text, unclosed = split_reasoning(text, reasoning_open=True)
        thoughts.append(inside or "")
        if unclosed:
            return thoughts, "", True
    for _ in range(_MOST_THOUGHTS):
        if _is_action(text):  # a closing tag in one of its texts ends no thought
            break
        found = first_block(text)
        if found is None:
            break
        thoughts.append(found[0])
        if found[1] is None:
            return thoughts, "", True
        text = found[1]
    return thoughts, text, False


def first_marker(text: str) -> re.Match[str] | None:
    """The first line that begins with ``Action:`` and does not stand in a thought that is open there."""
    thinking = False
    for found in _MARKER_OR_TAG.finditer(text):
        if found.group() in ("<think>", "</think>"):
            thinking = found.group() == "<think>"
        elif not thinking:
            return found
    return None


def _is_action(text: str) -> bool:
    found = _MARKER.search(text)
    if found is not None and first_block(text[: found.start()]) is not None:
        return False
    return object_in(text if found is None else text[found.end() :]) is not None


def object_in(text: str) -> JsonObject | None:
    """The one JSON object that ``text`` is; None if it is something else."""
    try:
        return _read_object(text)
    except BadJson:
        return None


def _read_object(text: str) -> JsonObject:
    """The JSON object that ``text`` is, in a code fence or not. Raises BadJson."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and len(text) >= 6:
        text = re.sub(r"\A\w*", "", text[3:-3]).strip()
    value = read_json(text, strict=True)  # a key that is there twice would be executed and dropped
    if not isinstance(value, dict):
        raise BadJson("The action is not a JSON object")
    return value


def read_action(body: str) -> tuple[str, JsonObject]:
    """(name, arguments). Raises BadJson with a sentence that lacks its full stop."""
    if not body.strip():
        raise BadJson("Nothing follows `Action:`")
    try:
        value = _read_object(body)
    except BadJson as problem:
        raise BadJson(f"The action cannot be read: {problem}") from None
    name, arguments = value.get("name"), value.get("arguments", {})
    if not isinstance(name, str) or not name.strip():
        raise BadJson('The action has no "name"')
    if set(value) - _KEYS:
        unknown = json.dumps(next(iter(sorted(set(value) - _KEYS))))
        raise BadJson(f'The action has {unknown[:60]} beside "name" and "arguments"')
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments, strict=True)
        except BadJson as problem:
            raise BadJson(f'"arguments" cannot be read: {problem}') from None
    if not isinstance(arguments, dict):
        raise BadJson('"arguments" is not a JSON object')
    return name, arguments


def joined(pieces: Sequence[str]) -> str | None:
    return "\n".join(stripped for piece in pieces if (stripped := piece.strip())) or None
