"""Text from outside that spells a control token (`<|im_end|>` in a user's message) stays text.

A tokenizer turns the spelling of an added token into that token, wherever it comes from. So a mark takes the place of each
spelling before the template is rendered. In the rendered text the mark becomes the spelling again, encoded in pieces none
of which spells a token. The ids decode to what the template writes, and all control tokens among them are the template's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tau2_slime.runtime.text import well_formed
from tau2_slime.tokens.template.chat_template import ControlSpellings

_NONCE = "tau" + secrets.token_hex(8)
"""Letters and digits, which no template escapes or trims. Nobody can guess it, so no text contains it."""
_MARK = re.compile(_NONCE + r"m(\d+)e")


class ControlTokenEscaper:
    """Puts marks in place of spellings of control tokens, and encodes text that contains marks.

    One object serves one rendering. Equal spellings get equal marks, because a template may compare tool-call ids.
    """

    def __init__(self, spellings: ControlSpellings) -> None:
        self._spellings = spellings
        self._regions: list[tuple[str, list[int]]] = []
        self.count = 0
        """Spellings found so far."""

    def escape_fields(
        self, message: Mapping[str, Any], *, keys: tuple[str, ...] = ("content", "tool_call_id", "name")
    ) -> dict[str, Any]:
        """A copy of a message, or of a part of one, with marks in the place of spellings in the text fields `keys`."""
        result = dict(message)
        for key in keys:
            if isinstance(result.get(key), str):
                result[key] = self.escape(result[key])
        return result

    def escape(self, text: str) -> str:
        """`text` with a mark in place of each region that spells control tokens, overlapping ones together."""
        text = well_formed(text)  # no tokenizer encodes a lone surrogate
        parts: list[str] = []
        position = 0
        for start, stop, cuts in self._regions_of(text):
            parts += [text[position:start], self._mark(text[start:stop], cuts)]
            position = stop
        return "".join([*parts, text[position:]])

    def _regions_of(self, text: str) -> list[tuple[int, int, list[int]]]:
        """(start, stop, where to cut, from the start) of each region; no piece between cuts is a spelling."""
        found = [(match.start(), match.end(1), match.start() + 1) for match in self._occurrences(text)]
        end = len(text.rstrip())
        tails = [tail for tail in self._spellings.open_tails if text.endswith(tail, 0, end)]
        if tails:
            found.append((end - len(max(tails, key=len)), end, end))
        self.count += len(found)
        regions: list[tuple[int, int, list[int]]] = []
        for start, stop, cut in found:
            if regions and start < regions[-1][1]:
                first, last, cuts = regions.pop()
                regions.append((first, max(last, stop), [*cuts, cut - first]))
            else:
                regions.append((start, stop, [cut - start]))
        return regions

    def _occurrences(self, text: str) -> Iterator[re.Match[str]]:
        pattern = self._spellings.control_pattern
        return pattern.finditer(text) if pattern else iter(())

    def _mark(self, region: str, cuts: list[int]) -> str:
        if (region, cuts) not in self._regions:
            self._regions.append((region, cuts))
        return f"{_NONCE}m{self._regions.index((region, cuts))}e"

    def restore(self, text: str) -> str:
        """The text with the spellings back in place of the marks."""
        return _MARK.sub(lambda match: self._regions[int(match.group(1))][0], text)

    def encode(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Token ids of a rendered text that may contain marks. ``encode``: the tokenizer's own, without special tokens."""
        return [token for piece in self.pieces(text) for token in encode(piece)]

    def pieces(self, text: str) -> list[str]:
        """`restore(text)`, cut inside every spelling that a mark stands for."""
        done: list[str] = []
        current = ""
        position = 0
        for match in _MARK.finditer(text):
            region, cuts = self._regions[int(match.group(1))]
            current += text[position : match.start()]
            begin = 0
            for cut in cuts:
                done.append(current + region[begin:cut])
                current, begin = "", cut
            current = region[begin:]
            position = match.end()
        return [*done, current + text[position:]]
