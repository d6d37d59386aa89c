"""A Qwen3 with random weights and a BPE of its own, in the chat template of a real checkpoint. Nothing is downloaded.

A vocabulary that is trained on the text of the very episodes keeps both the contexts short (about 800 tokens) and the
output layer small, which is where a tiny model spends its time.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

if TYPE_CHECKING:
    from benchmarks.learning.settings import ModelSize

CONTEXT = 32768
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")


def train_tokenizer(texts: Iterable[str], chat_template: str, size: ModelSize) -> PreTrainedTokenizerFast:
    """A byte-level BPE for ``texts``, with ChatML's control tokens and the tags of Qwen's calls as tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    words: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), *words] if size.single_digits else words
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size.vocabulary - len(_CONTROLS) - len(_TAGS),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_without(text, (*_CONTROLS, *_TAGS)) for text in texts), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    fast.chat_template = chat_template
    fast.model_max_length = CONTEXT
    return fast


def random_model(tokenizer: PreTrainedTokenizerFast, size: ModelSize, seed: int) -> Qwen3ForCausalLM:
    """fp32 weights drawn with ``seed``. The vocabulary is padded to a multiple of 64, as that of served models is."""
    torch.manual_seed(seed)
    ids = tokenizer.get_vocab()
    end, pad = ids["<|im_end|>"], ids["<|endoftext|>"]
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=(len(tokenizer) + 63) // 64 * 64,
            hidden_size=size.hidden,
            intermediate_size=size.feed_forward,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads // 2,
            head_dim=32,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=end,
            pad_token_id=pad,
            rope_theta=10000.0,
        )
    ).float()
    model.generation_config = GenerationConfig(eos_token_id=[end, pad], pad_token_id=pad, do_sample=True)
    return model


def save(folder: Path, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """A checkpoint that sglang and transformers load."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _without(text: str, words: tuple[str, ...]) -> str:
    for word in words:
        text = text.replace(word, "\n")
    return text
