"""The format of GLM-4.5 and 4.6, and of 4.7, which leaves the line breaks out:

<tool_call>f\\n<arg_key>k</arg_key>\\n<arg_value>v</arg_value>\\n</tool_call>

A string value is verbatim text, any other is JSON. The format has no escapes: a value cannot contain </arg_value>, nor
an opening tag of the format, because that is how a value that was never closed looks.
"""

from __future__ import annotations

import json
import re

from tau2_slime.tokens.calls.json_text import UntypedText
from tau2_slime.tokens.calls.parsers.tagged import BrokenCall, DraftCall, NestedTagParser, skip_space
from tau2_slime.tokens.calls.types import Call

_NAME = re.compile(r"[^\s<>{}\"']+")
KEY, END_KEY, VALUE, END_VALUE = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_OPENINGS = (NestedTagParser.opening, KEY, VALUE)
_ANY_OPENING = re.compile("|".join(_OPENINGS))


class GlmParser(NestedTagParser):
    name = "glm"
    cannot_contain = (END_VALUE, *_OPENINGS)

    def read(self, text: str, start: int, draft: DraftCall) -> int:
        at = skip_space(text, start)
        name = _NAME.match(text, at)
        if name is None:
            raise BrokenCall(at, f"the tool's name must follow {self.opening}")
        draft.name = name.group()
        at = skip_space(text, name.end())
        while text.startswith(KEY, at):
            key, at = _element(text, at, KEY, END_KEY)
            if not text.startswith(VALUE, at):
                raise BrokenCall(at, f"{VALUE} must follow {KEY}{key[:80]}{END_KEY}")
            value, at = _element(text, at, VALUE, END_VALUE)
            draft.arguments[key.strip()] = UntypedText(value)
        if text.startswith(self.closing, at):
            return at + len(self.closing)
        if at == len(text) or text.startswith(self.opening, at):
            raise BrokenCall(at, "the call does not end")
        raise BrokenCall(at, f"{KEY} or {self.closing} must follow, not {text[at : at + 40]!r}")

    def find_unopened_call(self, text: str) -> tuple[int, int, str] | None:
        key = text.find(KEY)
        if key < 0:
            return None
        before = text[:key].rstrip()
        name = before[before.rfind("\n") + 1 :].strip()
        known = name if _NAME.fullmatch(name) else ""
        close = text.find(self.closing, key)
        end = close + len(self.closing) if close >= 0 else len(text)
        return (len(before) - len(known) if known else key), end, known

    def format(self, calls: list[Call]) -> str:
        return "\n".join(
            f"{self.opening}{name}\n"
            + "".join(
                f"{KEY}{key}{END_KEY}\n"
                f"{VALUE}{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}{END_VALUE}\n"
                for key, value in arguments.items()
            )
            + self.closing
            for name, arguments in calls
        )


def _element(text: str, at: int, opening: str, closing: str) -> tuple[str, int]:
    """(what is between the tags, index of what follows) of the element that opens at `at`. Raises BrokenCall."""
    at += len(opening)
    end = text.find(closing, at)
    if end < 0 or _ANY_OPENING.search(text, at, end) is not None:
        raise BrokenCall(at, f"an {opening} does not end", closing)
    return text[at:end], skip_space(text, end + len(closing))
