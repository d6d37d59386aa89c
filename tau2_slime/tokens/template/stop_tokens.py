"""Which token ends an assistant turn in the history, and on which tokens the server has to stop.

The two are not always the same: gpt-oss samples `<|return|>`, and its template writes `<|end|>` in the history. The table
of families (`tokens/families.py`) has both. A template that is not in the table gets its closer from what it renders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tau2_slime.tokens.families import FAMILIES


def known_turn_tokens(
    source: str, token_id: Callable[[str], int | None]
) -> tuple[dict[str, int], frozenset[int]] | None:
    """(closers as spelling -> id, ids of the stop tokens) of a chat template; None if no family has such turns.

    ``source``: the template's Jinja source. ``token_id``: the id of an added token, None if the vocabulary lacks it.
    """
    for turn in (family.turn for family in FAMILIES if family.turn is not None):
        if all(marker in source and token_id(marker) is not None for marker in turn.markers):
            closers = {spelling: token for spelling in turn.closers if (token := token_id(spelling)) is not None}
            stops = frozenset(token for spelling in turn.stops if (token := token_id(spelling)) is not None)
            return closers, stops
    return None


def first_control_token(text: str, tokens: Mapping[str, int]) -> tuple[str, int] | None:
    """The added token that `text` spells first (the longest, where several begin there)."""
    best: tuple[int, int, str] | None = None
    for spelling in tokens:
        position = text.find(spelling)
        if position >= 0 and (best is None or (position, -len(spelling)) < best[:2]):
            best = (position, -len(spelling), spelling)
    return None if best is None else (best[2], tokens[best[2]])
