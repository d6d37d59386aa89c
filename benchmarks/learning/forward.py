"""The logits that predict the responses of a batch, with the prefix that all prompts share computed once.

The prompts of one τ² domain have about 700 of their 800 tokens in common. The gradient flows through the shared prefix too:
logits and gradients equal those of whole sequences to 4e-7, at a third of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM


def response_logits(
    model: Qwen3ForCausalLM, sequences: Sequence[Sequence[int]], response_lengths: Sequence[int], *, share: bool = True
) -> list[torch.Tensor]:
    """For each sequence the logits ``(response_length, vocabulary)`` that predict its last ``response_length`` tokens.

    Args:
        sequences: token ids of prompt and response.
        share: False computes every sequence as a whole. The results are the same.
    """
    device = model.device
    starts = [len(ids) - length for ids, length in zip(sequences, response_lengths, strict=True)]
    # The position before the first response token predicts it, so it stays out of the prefix.
    prefix = min(common_prefix(sequences), min(starts) - 1) if share and len(sequences) > 1 else 0
    size, longest = len(sequences), max(map(len, sequences)) - prefix
    ids = torch.zeros((size, longest), dtype=torch.long)
    attention = torch.zeros((size, prefix + longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence) - prefix] = torch.as_tensor(sequence[prefix:])
        attention[row, : len(sequence)] = 1
    cache = None
    if prefix:
        cache = DynamicCache()
        model.model(torch.as_tensor(sequences[0][:prefix])[None].to(device), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(size)
    hidden = model.model(
        ids.to(device),
        attention_mask=attention.to(device),
        position_ids=torch.arange(prefix, prefix + longest, device=device)[None].expand(size, -1),
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    rows = zip(hidden, starts, sequences, strict=True)
    return [
        model.lm_head(row[start - 1 - prefix : len(sequence) - 1 - prefix]).float() for row, start, sequence in rows
    ]


def log_probs(logits: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Natural log-probabilities ``(T,)`` of ``tokens`` ``(T,)`` under ``logits`` ``(T, vocabulary)``."""
    chosen = torch.as_tensor(tokens, device=logits.device)
    return logits.log_softmax(-1).gather(1, chosen[:, None])[:, 0]


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many of their first tokens all ``sequences`` share."""
    first, last = min(sequences), max(sequences)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
