"""Text from outside that spells a control token (`<|im_end|>` in a user's message) stays text.

A tokenizer turns the spelling of an added token into that token, wherever it comes from. So a mark takes the place of each
spelling before the template is rendered. In the rendered text the mark becomes the spelling again, encoded in pieces none
of which spells a token. The ids decode to what the template writes, and all control tokens among them are the template's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.runtime.text import well_formed

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

_NONCE = "tau" + secrets.token_hex(8)
"""Letters and digits, which no template escapes or trims. Nobody can guess it, so no text contains it."""
_MARK = re.compile(_NONCE + r"m(\d+)e")


class ControlSpellings:
    """How a tokenizer's control tokens are spelled."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.control_tokens = dict(tokens)
        """Spelling -> id of every added token for which text could be mistaken."""
        self.control_pattern = _any_of(self.control_tokens)
        """Finds where such a spelling begins, also inside another; group 1 is the longest. None when there are none."""
        self.open_tails = _open_tails(self.control_tokens)
        """Ends of a text that would swallow the beginning of a control token that follows (MiniMax: `[e~` + `[e~[`)."""


def control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Spelling -> id of the added tokens that are marks, not plain words or runs of white space."""
    return {
        str(spelling): int(token)
        for spelling, token in tokenizer.get_added_vocab().items()
        if spelling and not spelling.isspace() and not spelling.isalnum()
    }


def _any_of(spellings: Iterable[str]) -> re.Pattern[str] | None:
    ordered = sorted((spelling for spelling in spellings if len(spelling) > 1), key=lambda s: (-len(s), s))
    return re.compile(f"(?=({'|'.join(map(re.escape, ordered))}))") if ordered else None


def _open_tails(spellings: Iterable[str]) -> tuple[str, ...]:
    beginnings = {spelling[:size] for spelling in spellings for size in range(1, len(spelling))}
    return tuple(sorted({s[:size] for s in spellings for size in range(1, len(s)) if s[size:] in beginnings}))


@dataclass(eq=False)
class ControlTokenEscaper:
    """Puts marks in place of spellings of control tokens, and encodes text that contains marks.

    One object serves one rendering. Equal spellings get equal marks, because a template may compare tool-call ids.
    """

    spellings: ControlSpellings
    count: int = 0
    """Spellings found so far."""
    _regions: list[tuple[str, list[int]]] = field(default_factory=list)

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
        pattern = self.spellings.control_pattern
        found = [(m.start(), m.end(1), m.start() + 1) for m in pattern.finditer(text)] if pattern else []
        end = len(text.rstrip())
        tails = [tail for tail in self.spellings.open_tails if text.endswith(tail, 0, end)]
        if tails:
            found.append((end - len(max(tails, key=len)), end, end))
        if not found:
            return text
        self.count += len(found)
        parts: list[str] = []
        position = 0
        for start, stop, cuts in _regions(found):
            parts += [text[position:start], self._mark(text[start:stop], cuts)]
            position = stop
        return "".join([*parts, text[position:]])

    def _mark(self, region: str, cuts: list[int]) -> str:
        if (region, cuts) not in self._regions:
            self._regions.append((region, cuts))
        return f"{_NONCE}m{self._regions.index((region, cuts))}e"

    def encode(self, text: str, encode: Callable[[str], list[int]]) -> tuple[str, list[int]]:
        """(the text with the spellings back, its token ids) of a rendered text that may contain marks.

        ``encode``: the tokenizer's own, without special tokens.
        """
        if not self._regions:
            return text, encode(text)
        pieces = self.pieces(text)
        return "".join(pieces), [token for piece in pieces for token in encode(piece)]

    def pieces(self, text: str) -> list[str]:
        """The text with the spellings back in place of the marks, cut inside each of them."""
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


def _regions(found: list[tuple[int, int, int]]) -> list[tuple[int, int, list[int]]]:
    """(start, stop, where to cut, from the start) of each region; no piece between cuts is a spelling."""
    regions: list[tuple[int, int, list[int]]] = []
    for start, stop, cut in found:
        if regions and start < regions[-1][1]:
            first, last, cuts = regions.pop()
            regions.append((first, max(last, stop), [*cuts, cut - first]))
        else:
            regions.append((start, stop, [cut - start]))
    return regions
