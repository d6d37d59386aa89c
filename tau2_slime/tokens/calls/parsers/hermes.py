"""Hermes-JSON, the format of Qwen2.5, Qwen3 and Hermes: <tool_call>\\n{"name": …, "arguments": {…}}\\n</tool_call>."""

from __future__ import annotations

import json
import re

from tau2_slime.tokens.calls.json_text import BadJson, read_json, read_json_at
from tau2_slime.tokens.calls.parsers.tagged import DraftCall, TaggedParser
from tau2_slime.tokens.calls.types import Call, CallStatus, JsonObject

_NAME = re.compile(r'"name"\s*:\s*("(?:[^"\\]|\\.)*")')
_START = re.compile(r"\s*(?=[\[{])")


class HermesParser(TaggedParser):
    """The JSON is read to its own end before the closing tag is looked for, so an argument may contain the tags.

    A format that differs in its tags, or in the key of the arguments, is a subclass of a few lines:

    >>> class LlamaParser(HermesParser):
    ...     name = "llama"
    ...     opening, closing, arguments_key = "<function>", "</function>", "parameters"
    >>> LlamaParser().format([("wait", {"minutes": 5})])
    '<function>\\n{"name": "wait", "parameters": {"minutes": 5}}\\n</function>'
    """

    name = "hermes"
    arguments_key = "arguments"

    def __init__(self) -> None:
        super().__init__()
        self._shape = f'write {{"name": <tool name>, "{self.arguments_key}": {{…}}}}'
        self._end = re.compile(rf"\s*{re.escape(self.closing)}")

    def read_call(self, text: str, start: int) -> tuple[DraftCall, int]:
        begin = _START.match(text, start)
        if begin is None:
            return self._unreadable(text, start)
        body = begin.end()
        try:
            value, end = read_json_at(text, body)
        except BadJson:
            return self._unreadable(text, start)
        objects = value if isinstance(value, list) else [value]
        if not objects or not all(isinstance(one, dict) for one in objects):
            return self._unreadable(text, start)
        draft, *others = [self._from_object(one) for one in objects if isinstance(one, dict)]
        draft.others = others
        tag = self._end.match(text, end)
        if tag is not None:
            return draft, tag.end()
        body_end, call_end, closed = self.end_of_broken_call(text, end)
        if closed:
            extra = text[end:body_end].strip()
            error = (
                f"The tool call is not valid JSON: the object ends at character {end - body}, "
                f"but {extra[:40]!r} follows before {self.closing}."
            )
            return DraftCall(draft.name, {}, CallStatus.INVALID_JSON, error), call_end
        error = f"The tool call is not closed: write {self.closing} right after the JSON object."
        return DraftCall(draft.name, draft.arguments, CallStatus.UNCLOSED, error, draft.id), call_end

    def _unreadable(self, text: str, start: int) -> tuple[DraftCall, int]:
        """A call without a JSON object that ends; the reason is sought in its own body alone."""
        body_end, call_end, closed = self.end_of_broken_call(text, start)
        body = text[start:body_end].strip()
        if not body:
            problem = f"there is nothing after {self.opening}; {self._shape}"
        elif not body.startswith("{"):
            problem = f"it begins with {body[:20]!r}; {self._shape}"
        else:
            try:
                read_json_at(body, 0)
                problem = f"it must not contain {self.closing}"
            except BadJson as bad:
                problem = str(bad)
        name = _guess_name(body)
        if closed:
            return DraftCall(
                name, {}, CallStatus.INVALID_JSON, f"The tool call is not valid JSON: {problem}."
            ), call_end
        error = f"The tool call is not closed: {self.closing} is missing, and the call is incomplete ({problem})."
        return DraftCall(name, {}, CallStatus.UNCLOSED, error), call_end

    def _from_object(self, value: JsonObject) -> DraftCall:
        """The call that a JSON object describes; its status is INVALID_JSON if the object does not describe one."""
        name = value.get("name")
        keys = ("parameters", "arguments", self.arguments_key)  # servers read the first two in every such format
        arguments = next((value[key] for key in keys if value.get(key)), value.get(self.arguments_key, {}))
        given_id = value.get("id")
        call_id = given_id if isinstance(given_id, str) else None

        def bad(problem: str) -> DraftCall:
            known = name if isinstance(name, str) else ""
            return DraftCall(known, {}, CallStatus.INVALID_JSON, f"The tool call is not valid: {problem}.", call_id)

        if "name" not in value:
            return bad(f'the object has no "name"; {self._shape}')
        if not isinstance(name, str) or not name:
            return bad('"name" must be a non-empty string')
        if isinstance(arguments, str):
            try:
                arguments = read_json(arguments)
            except BadJson as problem:
                return bad(f'"{self.arguments_key}" is a string that does not hold a JSON object: {problem}')
        if not isinstance(arguments, dict):
            return bad(f'"{self.arguments_key}" must be a JSON object')
        return DraftCall(name, arguments, id=call_id)

    def find_unopened_call(self, text: str) -> tuple[int, int, str] | None:
        close = text.find(self.closing)
        start = text.find("{", 0, close) if close >= 0 else -1
        return None if start < 0 else (start, close + len(self.closing), _guess_name(text[start:close]))

    def format(self, calls: list[Call]) -> str:
        return "\n".join(
            f"{self.opening}\n"
            f"{json.dumps({'name': name, self.arguments_key: arguments}, ensure_ascii=False)}\n"
            f"{self.closing}"
            for name, arguments in calls
        )


def _guess_name(body: str) -> str:
    match = _NAME.search(body)
    if match is None:
        return ""
    try:
        return str(read_json(match.group(1)))
    except BadJson:
        return ""
