"""Encode, decode and render without transformers' wrappers, which cost more than the work itself.

Each shortcut is taken only where it is known to do the same. `encoder` and `decoder` want transformers' own fast tokenizer,
with none of the methods overridden, and are tried before they are used. A `Renderer` is compared with transformers over its
first renderings, which are those of calibration. Everything else goes the long way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

    from tau2_slime.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_PROBE = "Hello, wörld:  {}\n\n \t1234 'll 日本語 🙂"
_COMPARED = 32
"""How many renderings are made both ways."""
_FIELDS = frozenset(["role", "content", "tool_calls", "tool_call_id", "name"])
"""Of a message; releases of transformers treat other fields, and None, in ways of their own."""


def _is_transformers_own(tokenizer: Tokenizer, *methods: str) -> bool:
    found = [getattr(type(tokenizer), name, None) for name in methods]
    return all(getattr(method, "__module__", "").startswith("transformers.tokenization_utils") for method in found)


def _rust(tokenizer: Tokenizer) -> RustTokenizer | None:
    """The Rust tokenizer behind a fast one; None if it is not one, or if its class does more than ask it."""
    from tokenizers import Tokenizer as RustTokenizer

    if not _is_transformers_own(tokenizer, "encode", "_encode_plus", "decode", "_decode"):
        return None
    rust = getattr(tokenizer, "backend_tokenizer", None)
    return rust if isinstance(rust, RustTokenizer) else None


def encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]] | None:
    """``tokenizer.encode(text, add_special_tokens=False)`` at half the price; None if it might differ."""
    rust = _rust(tokenizer)
    if rust is None or getattr(tokenizer, "split_special_tokens", False):
        return None

    def encode(text: str) -> list[int]:
        # Whoever shares the tokenizer may have asked it for other things before; transformers sets that right.
        if rust.truncation is not None or rust.padding is not None or getattr(rust, "encode_special_tokens", False):
            return list(map(int, tokenizer.encode(text, add_special_tokens=False)))
        return list(rust.encode(text, add_special_tokens=False).ids)

    spellings = " ".join(list(tokenizer.get_added_vocab())[:8])
    for text in (_PROBE, spellings, f" {_PROBE}{spellings}a"):
        if list(rust.encode(text, add_special_tokens=False).ids) != tokenizer.encode(text, add_special_tokens=False):
            return None
    return encode


def decoder(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str] | None:
    """The text of ids, every token kept and nothing cleaned up, at a fraction of the price; None if it might differ."""
    rust = _rust(tokenizer)
    if rust is None:
        return None
    pieces = _Pieces(rust) if type(rust.decoder).__name__ == "ByteLevel" else None

    def decode(ids: Sequence[int]) -> str:
        if pieces is not None:
            try:
                return b"".join(map(pieces.__getitem__, ids)).decode()
            except UnicodeDecodeError:  # half a character: Rust says what takes its place
                pass
        return str(rust.decode(list(ids), skip_special_tokens=False))

    count = len(tokenizer)
    for ids in (tokenizer.encode(_PROBE, add_special_tokens=False), list(range(0, count, max(1, count // 200)))):
        if decode(ids) != slow_decode(tokenizer, ids):
            return None
    return decode


def slow_decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """`decoder`'s function, the long way."""
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False
    )


class _Pieces(dict[int, bytes]):
    """Token id -> its bytes, in a vocabulary whose tokens spell bytes as GPT-2's do; read as they are asked for."""

    def __init__(self, rust: RustTokenizer) -> None:
        super().__init__()
        self._token = rust.id_to_token
        plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = (byte for byte in range(256) if byte not in set(plain))
        self._bytes = {chr(b): b for b in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}

    def __missing__(self, token_id: int) -> bytes:
        token = self._token(int(token_id)) or ""
        try:
            piece = bytes([self._bytes[character] for character in token])
        except KeyError:  # an added token, which spells itself
            piece = token.encode()
        self[token_id] = piece
        return piece


class Renderer:
    """The chat template, compiled once and rendered by Jinja itself."""

    def __init__(self, tokenizer: Tokenizer, source: str, arguments: Mapping[str, object]) -> None:
        """``source``: the template. ``arguments``: what every rendering is given."""
        self._compiled: Any = None
        self._left = _COMPARED
        self._only_with_tools = not isinstance(tokenizer.chat_template, str)  # others may have one template for each
        if _is_transformers_own(tokenizer, "apply_chat_template", "get_chat_template"):
            try:
                from transformers.utils.chat_template_utils import _compile_jinja_template

                special = getattr(tokenizer, "special_tokens_map", {})
                self._arguments = orjson.loads(orjson.dumps({**special, **arguments}))
                self._compiled = _compile_jinja_template(source)
            except Exception:  # another release, or arguments that are not JSON
                self._compiled = None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        prompted: bool,
        the_long_way: Callable[[], str],
    ) -> str:
        """What the template writes. ``the_long_way``: transformers', which also says what is wrong with the messages."""
        if (
            self._compiled is None
            or (self._only_with_tools and not tools)
            or not all(message.keys() <= _FIELDS and message.get("content") is not None for message in messages)
        ):
            return the_long_way()
        try:  # as transformers does it, a template sees nothing but plain copies
            chat, schemas = orjson.loads(orjson.dumps([messages, tools or None]))
            text = str(
                self._compiled.render(
                    messages=chat, tools=schemas, documents=None, add_generation_prompt=prompted, **self._arguments
                )
            )
        except Exception:  # also the template's own refusal
            return the_long_way()
        if self._left > 0:
            self._left -= 1
            known = the_long_way()
            if text != known:
                self._compiled = None
                logger.info("this release of transformers renders the chat template in its own way: the slower path")
            return known
        return text
