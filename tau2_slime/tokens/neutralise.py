"""Text from outside that spells a control token (`<|im_end|>` in a user's message) stays text.

A tokenizer turns the spelling of an added token into that token, wherever it comes from. So each spelling is replaced
by a mark before the template is rendered, and in the rendered text the mark becomes the spelling again, encoded in two
pieces. The decoded text is what the template writes; no id of it is a control token that the template did not write.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from tau2_slime.tokens.chat_template import ChatTemplate, TemplateError

_NONCE = "tau" + secrets.token_hex(8)
"""Letters and digits only, so that no template escapes or trims it; not guessable, so that no text contains it."""
_MARK = re.compile(_NONCE + r"m(\d+)e")


class Neutraliser:
    """Replaces spellings of control tokens by marks, and encodes text that contains marks.

    One object serves one render: equal spellings get equal marks, so that ids which a template compares stay equal.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._spellings: list[str] = []
        self.count = 0
        """Spellings found so far."""

    def message(
        self, message: Mapping[str, Any], *, keys: tuple[str, ...] = ("content", "tool_call_id", "name")
    ) -> Any:
        """A copy of `message` with marks in place of spellings in the string fields `keys`."""
        result = dict(message)
        for key in keys:
            if isinstance(result.get(key), str):
                result[key] = self.text(result[key])
        return result

    def text(self, text: str) -> str:
        pattern = self._template.control_pattern
        return pattern.sub(self._mark, clean(text)) if pattern is not None else clean(text)

    def _mark(self, match: re.Match[str]) -> str:
        spelling = match.group(0)
        if spelling not in self._spellings:
            self._spellings.append(spelling)
        self.count += 1
        return f"{_NONCE}m{self._spellings.index(spelling)}e"

    def restore(self, text: str) -> str:
        """The text with the spellings back in place of the marks."""
        return _MARK.sub(lambda match: self._spellings[int(match.group(1))], text)

    def encode(self, text: str) -> list[int]:
        """Ids of a rendered text that may contain marks."""
        return [token for piece in self.pieces(text) for token in self._template.encode(piece)]

    def pieces(self, text: str) -> list[str]:
        """`restore(text)` cut inside every restored spelling, so that encoding the pieces forms no token of it."""
        done: list[str] = []
        current = ""
        position = 0
        for match in _MARK.finditer(text):
            spelling = self._spellings[int(match.group(1))]
            before = current + text[position : match.start()]
            following = _MARK.split(text[match.end() :], maxsplit=1)[0]
            cut = self._cut(before, spelling, following)
            done.append(before + spelling[:cut])
            current = spelling[cut:]
            position = match.end()
        done.append(current + text[position:])
        return done

    def _cut(self, before: str, spelling: str, following: str) -> int:
        """Where to cut so that neither half forms a control token with its neighbours."""
        pattern = self._template.control_pattern
        assert pattern is not None
        for cut in range(1, len(spelling)):
            left, right = before + spelling[:cut], spelling[cut:] + following
            reaches_in = any(match.end() > len(before) for match in pattern.finditer(left))
            first = pattern.search(right)
            if not reaches_in and (first is None or first.start() >= len(spelling) - cut):
                return cut
        raise TemplateError("sentinel", f"text that spells {spelling!r} cannot be encoded as ordinary text")


def clean(text: str) -> str:
    """`text` without lone surrogates (a user model's broken JSON escape), which no tokenizer encodes."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
