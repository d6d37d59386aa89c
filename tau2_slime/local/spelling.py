"""The same text in other tokens, as models sometimes sample it, and log-probabilities and random draws from a hash.

A client that decodes a sampled turn and tokenises it again gets other ids than were sampled. With a real model that happens
in a few turns of a thousand. Here it is frequent, so that the first episode shows such a client.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer


def draw(*key: object) -> float:
    """A number in [0, 1) that depends on the texts of ``key`` alone, on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56


def log_prob(position: int, token: int) -> float:
    """A plausible log-probability (natural logarithm) of ``token`` at ``position``: below 0 and mostly close to it."""
    u = (((position + 1) * 2654435761 ^ (token + 1) * 40503 * 65537) % 1_000_003 + 0.5) / 1_000_003
    return 0.35 * math.log(u) - 1e-4


class Speller:
    """Splits tokens of one tokenizer in two."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab()
        self._pieces = {token: piece for piece, token in self._vocabulary.items()}
        self._never_split = {int(token) for token in tokenizer.get_added_vocab().values()}

    def respell(self, ids: Sequence[int], share: float, key: str) -> list[int]:
        """``ids`` with about ``share`` of them split in two; always the same for the same ``key``.

        The result decodes to the same text. Where it would not, ``ids`` come back unchanged.
        """
        if share <= 0:
            return list(ids)
        spelled: list[int] = []
        for position, token in enumerate(ids):
            halves = self._halves(token) if draw(key, position) < share else []
            spelled.extend(halves[int(draw(key, position, "half") * len(halves))] if halves else (token,))
        return spelled if self._text(spelled) == self._text(ids) else list(ids)

    def _halves(self, token: int) -> list[tuple[int, int]]:
        """Every way to write ``token`` as two others."""
        piece = self._pieces.get(token, "")
        if token in self._never_split:
            return []
        known = self._vocabulary
        return [
            (known[piece[:cut]], known[piece[cut:]])
            for cut in range(1, len(piece))
            if piece[:cut] in known and piece[cut:] in known
        ]

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(
            list(ids),
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
            spaces_between_special_tokens=False,
        )
