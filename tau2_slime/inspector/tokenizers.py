"""The tokenizer that belongs to a file's token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.found import FoundEpisodes

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


def language_of(
    found: FoundEpisodes,
    hf_checkpoint: str | None,
    template_kwargs: Mapping[str, Any] | None = None,
    *,
    trust_remote_code: bool = False,
) -> CheckpointProfile | None:
    """The tokenizer and the chat template of the policy that played; None if neither the user nor the files name it.

    ``hf_checkpoint``: what the user named. Raises ConfigError if the checkpoint cannot be used. ``trust_remote_code`` counts
    for ``hf_checkpoint`` alone: a file that somebody sent must not name code that runs here.
    """
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.policy.checkpoint import build_profile
    from tau2_slime.tokens.calls.action_text import FORMATS

    checkpoint = hf_checkpoint or found.checkpoint
    if checkpoint is None and found.embedded:
        from tau2_slime.local.tokenizer import local_checkpoint

        checkpoint = str(local_checkpoint())
    if checkpoint is None:
        return None
    if hf_checkpoint is None and Path(checkpoint).is_absolute() and not Path(checkpoint).exists():
        return None  # the file was written on another machine
    overrides: dict[str, Any] = {"chat_template_kwargs": dict(template_kwargs)} if template_kwargs else {}
    strategies = found.strategies | {trajectory.agent_strategy for trajectory in found.trajectories}
    if strategies and strategies <= {*FORMATS}:  # a template without tools can be good enough for these
        overrides["agent_strategy"] = min(strategies)
    trusted = trust_remote_code and hf_checkpoint is not None
    return build_profile(checkpoint, Tau2Config.resolve(None, overrides), trust_remote_code=trusted)


def token_texts(ids: Iterable[int], language: CheckpointProfile) -> dict[int, str]:
    """The text of each token on its own; bytes that are not a whole character are written as ``\\xe4``."""
    template = language.delta.template
    texts = {}
    for token in set(ids):
        text = template.decode([token])
        if "\N{REPLACEMENT CHARACTER}" in text:
            raw = template.tokenizer.convert_ids_to_tokens(token)
            text = _byte_level_text(raw) if isinstance(raw, str) else text
        texts[token] = text
    return texts


def _byte_level_text(raw: str) -> str:
    """A byte-level token, which spells each byte as one letter, as text; ``raw`` if it is another kind of token."""
    try:
        data = bytes(_BYTE_OF_LETTER[letter] for letter in raw)
    except KeyError:
        return raw
    return data.decode("utf-8", errors="backslashreplace")


_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTE_OF_LETTER = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + n): byte for n, byte in enumerate(sorted({*range(256)} - {*_PRINTABLE}))
}
"""GPT-2's alphabet of bytes."""
