"""The tokenizer that belongs to a file's ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.load import Loaded

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


def language_of(
    loaded: Loaded, given: str | None, template_kwargs: Mapping[str, Any] | None = None
) -> CheckpointProfile | None:
    """The checkpoint's tokenizer and template; None if nobody says which it is.

    ``given`` is the user's ``--hf-checkpoint``. Raises ConfigError if that one cannot be used.
    """
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.policy.checkpoint import build_profile

    checkpoint = given or loaded.checkpoint
    if checkpoint is None and loaded.embedded:
        from tau2_slime.local.tokenizer import local_checkpoint

        checkpoint = str(local_checkpoint())
    if checkpoint is None:
        return None
    if given is None and Path(checkpoint).is_absolute() and not Path(checkpoint).exists():
        return None  # written on another machine
    overrides = {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
    return build_profile(checkpoint, Tau2Config.resolve(None, overrides))


def vocabulary(ids: Iterable[int], language: CheckpointProfile) -> dict[int, str]:
    """What each id stands for, alone; bytes that are no character of their own are written in hexadecimal."""
    template = language.delta.template
    out = {}
    for token in set(ids):
        text = template.decode([token])
        if "�" in text:
            raw = template.tokenizer.convert_ids_to_tokens(token)
            text = _bytes(raw) if isinstance(raw, str) else text
        out[token] = text
    return out


def _bytes(raw: str) -> str:
    """GPT-2's letters for bytes, as bytes; what is something else stays."""
    try:
        data = bytes(_LETTERS[letter] for letter in raw)
    except KeyError:
        return raw
    return data.decode("utf-8", errors="backslashreplace")


def _letters() -> dict[str, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


_LETTERS = _letters()
