"""Make a Qwen3 of 100 thousand weights that rambles, stops, and calls a tool (runs inside ``.venv-engine``).

    python make_tiny_model.py OUT_DIR CHAT_TEMPLATE_FILE [moe]

Random weights and a byte-level tokenizer of about 500 ids: nothing is downloaded, and sampling costs little (a vocabulary
of 151,936 would be 5 to 10 times slower on a CPU). Pure noise would never call a tool, so a few of the 64 hidden
dimensions are reserved for a small chain: a constant raises the first tokens of a call and the stop tokens at any time,
and ``<tool_call>`` -> the call's JSON -> ``</tool_call>`` -> ``<|im_end|>`` follow each other with high probability.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from launch_sglang import declare_torchvision_ops
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

declare_torchvision_ops()

from transformers import (  # noqa: E402
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

# One token per call, so that a chain of single steps writes it: a call that succeeds, one with a wrong enumeration value,
# one of a tool that does not exist, and one that is no JSON.
CALLS = (
    '\n{"name": "get_users", "arguments": {}}\n',
    '\n{"name": "update_task_status", "arguments": {"task_id": "task_1", "status": "lost"}}\n',
    '\n{"name": "fly_to_the_moon", "arguments": {}}\n',
    '\n{"name": "get_users", "arguments": {\n',
)
HIDDEN = 64
# `moe`: a mixture of experts in every layer.
MIXTURE = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": True}
# What prompts are made of, so that one is about a thousand tokens and not as many as it has bytes.
WORDS = """
{"type": "function", "function": {"name": "update_task_status", "description": "Update the status of a task.",
"parameters": {"properties": {"task_id": {"description": "The ID of the task to update", "title": "Task Id", "type":
"string"}, "user_id": {"description": "The ID of the user creating the task", "title": "User Id", "type": "string"}},
"required": ["task_id", "status"], "title": "parameters", "type": "object"}}}
You are a customer service agent that helps the user according to the <policy> provided below. In each turn you can either:
send a message to the user, or make a tool call. You cannot do both at the same time. Try to be helpful and always follow
the policy. As I said, this is about my case reference; please go on. Only existing users can create tasks.
"""


def make_tokenizer(chat_template: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with ChatML's control tokens; every call of `CALLS` is one added token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    words = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", *CALLS)
    fast.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    fast.chat_template = chat_template
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast, moe: bool) -> Qwen3ForCausalLM | Qwen3MoeForCausalLM:
    """fp32, two layers, the vocabulary padded to a multiple of 64 as served models do."""
    torch.manual_seed(20)
    model_class, config_class = (Qwen3MoeForCausalLM, Qwen3MoeConfig) if moe else (Qwen3ForCausalLM, Qwen3Config)
    ids = tokenizer.get_vocab()
    end, other_end = ids["<|im_end|>"], ids["<|endoftext|>"]
    model = model_class(
        config_class(
            vocab_size=(len(tokenizer) + 63) // 64 * 64,
            hidden_size=HIDDEN,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=32768,
            tie_word_embeddings=False,
            eos_token_id=end,
            bos_token_id=None,
            pad_token_id=other_end,
            initializer_range=0.15,
            **(MIXTURE if moe else {}),
        )
    ).to(torch.float32)
    model.generation_config = GenerationConfig(eos_token_id=[end, other_end], pad_token_id=other_end, do_sample=True)
    _add_chain(model, tokenizer)
    return model


def _add_chain(model: Qwen3ForCausalLM | Qwen3MoeForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Reserved dimensions: 0 is on for every token, 1.. are on for one kind of token and raise what shall follow it."""
    ids = tokenizer.get_vocab()
    calls = [ids[call] for call in CALLS]
    start, finish, end, other_end = (ids[t] for t in ("<tool_call>", "</tool_call>", "<|im_end|>", "<|endoftext|>"))
    embed, head = model.model.embed_tokens.weight, model.lm_head.weight
    with torch.no_grad():
        for layer in model.model.layers:  # the layers read the reserved dimensions but do not write them
            layer.self_attn.o_proj.weight[:4] = 0
            if isinstance(model, Qwen3MoeForCausalLM):
                layer.mlp.experts.down_proj[:, :4] = 0
            else:
                layer.mlp.down_proj.weight[:4] = 0
        embed[:, :4] = 0
        head[:, :4] = 0
        head[[start, finish, end, other_end, *calls], 4:] = 0  # whatever was said before
        embed[:, 0] = 2.0
        embed[start, 1] = embed[calls, 2] = embed[finish, 3] = 8.0
        # After the last norm a 2.0 is about 0.9 and an 8.0 about 3: the factors below make that 2 to 9 nats.
        head[start, 0] = 4.0
        head[end, 0] = head[other_end, 0] = 3.2
        head[calls, 1] = 2.5
        head[finish, 2] = head[end, 3] = 3.0


if __name__ == "__main__":
    out = Path(sys.argv[1])
    made = make_tokenizer(Path(sys.argv[2]).read_text(encoding="utf-8"))
    network = make_model(made, moe=sys.argv[3:] == ["moe"])
    network.save_pretrained(out)
    made.save_pretrained(out)
    weights = sum(p.numel() for p in network.parameters())
    print(f"{out}: {len(made)} tokens, vocabulary {network.config.vocab_size}, {weights} weights")
