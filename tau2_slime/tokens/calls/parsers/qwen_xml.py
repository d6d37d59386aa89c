"""Qwen-XML, the format of Qwen3-Coder, Qwen3.5 and later, and Nemotron-3:

<tool_call>\\n<function=f>\\n<parameter=p>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>

Values are untyped text between two line breaks. The format has no escapes: a value cannot contain </parameter>, nor an
opening tag of the format, because that is how a parameter that was never closed looks.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tau2_slime.tokens.calls.json_text import UntypedText
from tau2_slime.tokens.calls.parsers.tagged import BrokenCall, DraftCall, NestedTagParser, skip_space
from tau2_slime.tokens.calls.types import Call

_FUNCTION = re.compile(r"<function=([^<>\n]*)>")
_PARAMETER = re.compile(r"<parameter=([^<>\n]*)>")
_OPENINGS = (NestedTagParser.opening, "<function=", "<parameter=")
_ANY_OPENING = re.compile("|".join(_OPENINGS))
END_FUNCTION, END_PARAMETER = "</function>", "</parameter>"


class QwenXmlParser(NestedTagParser):
    name = "qwen_xml"
    cannot_contain = (END_PARAMETER, *_OPENINGS)

    def read(self, text: str, start: int, draft: DraftCall) -> int:
        at = skip_space(text, start)
        function = _FUNCTION.match(text, at)
        if function is None or not function.group(1).strip():
            raise BrokenCall(at, f"<function=NAME> must follow {self.opening}")
        draft.name = function.group(1).strip()
        at = skip_space(text, function.end())
        while (parameter := _PARAMETER.match(text, at)) is not None:
            key = parameter.group(1).strip()
            end = text.find(END_PARAMETER, parameter.end())
            if end < 0 or _ANY_OPENING.search(text, parameter.end(), end) is not None:
                raise BrokenCall(at, f"the value of parameter {key[:80]!r} does not end", END_PARAMETER)
            draft.arguments[key] = _value(text[parameter.end() : end])
            at = skip_space(text, end + len(END_PARAMETER))
        if not text.startswith(END_FUNCTION, at):
            if text.startswith(self.closing, at) or at == len(text) or text.startswith(self.opening, at):
                raise BrokenCall(at, "the function does not end", END_FUNCTION)
            raise BrokenCall(at, f"<parameter=NAME> or {END_FUNCTION} must follow, not {text[at : at + 40]!r}")
        at = skip_space(text, at + len(END_FUNCTION))
        if text.startswith(self.closing, at):
            return at + len(self.closing)
        raise BrokenCall(at, f"it must follow {END_FUNCTION}")

    def find_unopened_call(self, text: str) -> tuple[int, int, str] | None:
        match = _FUNCTION.search(text)
        if match is None:
            return None
        close = text.find(self.closing, match.end())
        end = text.find(END_FUNCTION, match.end())
        stop = close + len(self.closing) if close >= 0 else end + len(END_FUNCTION) if end >= 0 else len(text)
        return match.start(), stop, match.group(1).strip()

    def format(self, calls: list[Call]) -> str:
        return "\n".join(
            f"{self.opening}\n<function={name}>\n"
            + "".join(f"<parameter={key}>\n{_value_text(value)}\n{END_PARAMETER}\n" for key, value in arguments.items())
            + f"{END_FUNCTION}\n{self.closing}"
            for name, arguments in calls
        )


def _value(text: str) -> UntypedText:
    """A value without the one line break that the format puts on either side of it."""
    text = text.removeprefix("\n")
    return UntypedText(text.removesuffix("\n"))


def _value_text(value: Any) -> str:
    """As the templates of the family do: lists and objects as JSON, all else as Python prints it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
