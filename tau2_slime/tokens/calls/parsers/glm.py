"""The format of GLM-4.5 and 4.6, and of 4.7, which leaves the line breaks out:

<tool_call>f\\n<arg_key>k</arg_key>\\n<arg_value>v</arg_value>\\n</tool_call>

A string value is verbatim text, any other is JSON. The format has no escapes: a value cannot contain </arg_value>, nor
an opening tag of the format, because that is how a value that was never closed looks.
"""

from __future__ import annotations

import json
import re

from tau2_slime.tokens.calls.parsers.structured import Broken, StructuredParser
from tau2_slime.tokens.calls.parsers.tagged import CLOSE, OPEN, Draft, skip_space
from tau2_slime.tokens.calls.spelled_json import RawText
from tau2_slime.tokens.calls.types import Call

_NAME = re.compile(r"[^\s<>{}\"']+")
_OPENING = re.compile(r"<tool_call>|<arg_key>|<arg_value>")
KEY, END_KEY, VALUE, END_VALUE = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


class GlmParser(StructuredParser):
    name = "glm"

    def read(self, text: str, start: int, draft: Draft) -> int:
        return _read(text, start, draft)

    def unopened(self, text: str) -> tuple[int, int, str] | None:
        key = text.find(KEY)
        if key < 0:
            return None
        before = text[:key].rstrip()
        name = before[before.rfind("\n") + 1 :].strip()
        known = name if _NAME.fullmatch(name) else ""
        close = text.find(CLOSE, key)
        return (len(before) - len(known) if known else key), (close + len(CLOSE) if close >= 0 else len(text)), known

    def format(self, calls: list[Call]) -> str:
        return "\n".join(
            f"{OPEN}{name}\n"
            + "".join(
                f"{KEY}{key}{END_KEY}\n"
                f"{VALUE}{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}{END_VALUE}\n"
                for key, value in arguments.items()
            )
            + CLOSE
            for name, arguments in calls
        )


def _read(text: str, start: int, draft: Draft) -> int:
    """Fill `draft` from the call whose <tool_call> ends at `start`; the index after the call. Raises Broken."""
    at = skip_space(text, start)
    name = _NAME.match(text, at)
    if name is None:
        raise Broken("the tool's name must follow <tool_call>")
    draft.name = name.group()
    at = skip_space(text, name.end())
    while text.startswith(KEY, at):
        key, at = _element(text, at, KEY, END_KEY)
        if not text.startswith(VALUE, at):
            raise Broken(f"{VALUE} must follow {KEY}{key[:80]}{END_KEY}")
        value, at = _element(text, at, VALUE, END_VALUE)
        draft.arguments[key.strip()] = RawText(value)
    if text.startswith(CLOSE, at):
        return at + len(CLOSE)
    if at == len(text) or text.startswith(OPEN, at):
        raise Broken("the call does not end", CLOSE)
    raise Broken(f"{KEY} or {CLOSE} must follow, not {text[at : at + 40]!r}")


def _element(text: str, at: int, opening: str, closing: str) -> tuple[str, int]:
    """(what is between the tags, index of what follows) of the element that opens at `at`. Raises Broken."""
    at += len(opening)
    end = text.find(closing, at)
    if end < 0 or _OPENING.search(text, at, end) is not None:
        raise Broken(f"an {opening} does not end", closing)
    return text[at:end], skip_space(text, end + len(closing))
