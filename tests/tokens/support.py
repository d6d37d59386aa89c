"""Tokenizers, templates and conversations for the token tests."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.tokens.fetch_templates import LLAMA_CPP, QWEN3, QWEN_VOCABULARY, TRL, template_path

FETCH = "run `python tests/tokens/fetch_templates.py`"

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Use it to {name.replace('_', ' ')}.",
            "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]},
        },
    }
    for name in ("get_order_details", "cancel_pending_order")
]

SYSTEM = {"role": "system", "content": "You are a retail agent.\n\n# Policy\n- Authenticate the customer first."}
GREETING = {"role": "assistant", "content": "Hi! How can I help you today?"}

SENTENCES = [
    "You are a retail agent. Authenticate the customer first, then cancel or modify pending orders.",
    "Hi! How can I help you today? I would like to cancel the order #W0000000 because it was ordered by mistake.",
    '{"name": "get_order_details", "arguments": {"order_id": "#W0000000", "status": "pending", "total": 12.50}}',
]
"""What the stand-in vocabularies are trained on."""


def trl_template(name: str) -> str:
    return _template(TRL, name)


def llama_cpp_template(name: str) -> str:
    return _template(LLAMA_CPP, name)


def _template(package: str, name: str) -> str:
    path = template_path(package, name)
    if not path.exists():
        pytest.skip(f"chat template {name} of {package} is missing: {FETCH}")
    return path.read_text(encoding="utf-8")


@cache
def _backend(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def qwen_tokenizer(template: str) -> Any:
    """The real Qwen2.5 / Qwen3 vocabulary under a chat template."""
    from transformers import PreTrainedTokenizerFast

    if not QWEN3.exists():
        pytest.skip(f"the Qwen3 vocabulary of {QWEN_VOCABULARY} is missing: {FETCH}")
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(QWEN3), eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


@cache
def _trained(added: tuple[str, ...]) -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer.to_str()


def stand_in_tokenizer(template: str, added: tuple[str, ...], *, eos: str, bos: str | None = None) -> Any:
    """A small byte-level vocabulary that has a family's added tokens: for proofs in which the ids do not matter."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(added)), eos_token=eos, bos_token=bos, chat_template=template
    )


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: dict[str, Any], content: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(number: int, content: str, name: str = "get_order_details") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": name, "content": content}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def text(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def spelled_out(tokenizer: Any, said: str) -> list[int]:
    """Ids of `said` spelled character by character: what a model may sample and no tokenizer would produce."""
    return [token for char in said for token in tokenizer.encode(char, add_special_tokens=False)]


def hermes(message: dict[str, Any]) -> str:
    """What a Qwen2.5 / Qwen3 model samples for this message, without the turn's end."""
    parts = [message["content"]] if message.get("content") else []
    for made in message.get("tool_calls", ()):
        function = {"name": made["function"]["name"], "arguments": made["function"]["arguments"]}
        parts.append(f"<tool_call>\n{json.dumps(function, ensure_ascii=False)}\n</tool_call>")
    return "\n".join(parts)
