"""Control tokens that a user or a tool spells (``<|im_end|>`` in a message) stay text, whichever renderer encodes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tokenizers import Encoding
from tokenizers import Tokenizer as FastTokenizer

from tau2_slime.tokens.template.control_tokens import ControlSpellings, ControlTokenEscaper, control_tokens

if TYPE_CHECKING:
    from tinker_cookbook.renderers import Renderer

    from tau2_slime.tokens.tokenizer import Tokenizer


class EscapingTokenizers:
    """Takes over the ``encode`` of a renderer's tokenizers.

    While messages are `escaping`, they hold marks in place of the spellings of control tokens, and ``encode`` turns a mark
    into the ordinary tokens of its spelling. Not thread-safe: one rendering at a time.
    """

    def __init__(self, renderer: Renderer, tokenizer: Tokenizer) -> None:
        """``tokenizer``: the renderer's. Nobody else may use it, because its ``encode`` is replaced for good."""
        self._encode = tokenizer.encode
        self.spellings = ControlSpellings(control_tokens(tokenizer))
        self._escaper: ControlTokenEscaper | None = None
        tokenizer.encode = self._encode_text  # type: ignore[method-assign]
        for attribute, value in list(vars(renderer).items()):
            if isinstance(value, FastTokenizer | _EscapingFastTokenizer):  # 0.6's qwen3 has one beside the common one
                setattr(renderer, attribute, _EscapingFastTokenizer(value, self))

    @contextmanager
    def escaping(self) -> Iterator[ControlTokenEscaper]:
        """For as long as the block runs, ``encode`` knows the marks that the yielded escaper puts."""
        self._escaper = ControlTokenEscaper(self.spellings)
        try:
            yield self._escaper
        finally:
            self._escaper = None

    def pieces(self, text: object) -> list[Any]:
        """``text`` in pieces that are to be encoded one by one; whole if nothing in it is marked."""
        return self._escaper.pieces(text) if self._escaper is not None and isinstance(text, str) else [text]

    def _encode_text(self, text: object, *args: Any, **kwargs: Any) -> list[int]:
        return [token for piece in self.pieces(text) for token in self._encode(piece, *args, **kwargs)]


class _EscapingFastTokenizer:
    """A `tokenizers.Tokenizer` whose ``encode`` knows the marks; everything else is the wrapped one's."""

    def __init__(self, wrapped: FastTokenizer | _EscapingFastTokenizer, tokenizers: EscapingTokenizers) -> None:
        self._wrapped, self._tokenizers = wrapped, tokenizers

    def encode(self, text: object, *args: Any, **kwargs: Any) -> Encoding | SimpleNamespace:
        """The wrapped one's encoding. For a text in several pieces it has the attribute ``ids`` and no other."""
        encoded = [self._wrapped.encode(piece, *args, **kwargs) for piece in self._tokenizers.pieces(text)]
        return encoded[0] if len(encoded) == 1 else SimpleNamespace(ids=[i for piece in encoded for i in piece.ids])

    def __getattr__(self, name: str) -> object:
        return getattr(self._wrapped, name)
