"""Which parser reads a checkpoint's tool calls: the known formats by name, and the choice of one by chat template."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from tau2_slime.tokens.calls.types import BUILT_IN, SGLANG_PREFIX, ParserUnavailable, ToolCallParser, UnknownToolFormat

PARSERS = (*BUILT_IN, "sglang:<parser>")
"""What `get_parser` accepts; `<parser>` is any name of sglang's --tool-call-parser."""


def get_parser(name: str) -> ToolCallParser:
    """The parser called ``name`` (one of `PARSERS`).

    Raises:
        ParserUnavailable: there is none of that name, or it cannot run here.
    """
    if name.startswith(SGLANG_PREFIX):
        from tau2_slime.tokens.calls.parsers.sglang_adapter import SglangParser

        return SglangParser(name.removeprefix(SGLANG_PREFIX))
    if name not in BUILT_IN:
        raise ParserUnavailable(f"unknown tool-call parser {name!r}; choose one of {', '.join(PARSERS)}")
    module, class_name = BUILT_IN[name]
    parser: ToolCallParser = getattr(importlib.import_module(f"tau2_slime.tokens.calls.parsers.{module}"), class_name)()
    return parser


_MARKERS: tuple[tuple[tuple[str, ...], str | None], ...] = (
    (("<minimax:tool_call>",), "sglang:minimax-m2"),
    (("ns_token", "<invoke name="), None),
    (("<|tool_call_begin|>",), "sglang:kimi_k2"),
    (("｜DSML｜", "function_calls"), "sglang:deepseekv32"),
    (("｜DSML｜",), "sglang:deepseekv4"),
    (("<｜tool▁calls▁begin｜>", "```json"), "sglang:deepseekv3"),
    (("<｜tool▁calls▁begin｜>",), "sglang:deepseekv31"),
    (("<｜tool_calls_begin｜>",), "sglang:step3"),
    (("<|channel|>", "functions.", "<|call|>"), "sglang:gpt-oss"),
    (("[TOOL_CALLS]",), "sglang:mistral"),
    (("<|tool_call_start|>",), "sglang:lfm2"),
    (("<|START_ACTION|>",), "sglang:cohere_command4"),
    (("<|tool_call>",), "sglang:gemma4"),
    (("<tool_call>", "<arg_key>"), "glm"),
    (("<tool_call>", "<function="), "qwen_xml"),
    (("<tool_call>", '"name"'), "hermes"),
    (("<function=",), None),
    (("<|start_header_id|>", '"parameters": '), "sglang:llama3"),
    (("<|start_header_id|>", "<|python_tag|>"), "sglang:llama3"),
)
"""Texts that a chat template writes around a call -> parser, None for a format without one. The first row whose texts
all occur wins."""

_TELLING_TOKENS = (
    ("<arg_key>", "glm"),
    ("<|tool_call_begin|>", "sglang:kimi_k2"),
    ("<minimax:tool_call>", "sglang:minimax-m2"),
)
"""Added tokens that occur in one family only, for templates that leave the writing of calls to the caller."""


def detect_parser(template_source: str, added_tokens: Iterable[str] = ()) -> str:
    """Name of the parser for what this chat template writes when an assistant turn calls a tool.

    `added_tokens`: texts of the tokenizer's added tokens, asked only where the template itself shows no format.
    Raises UnknownToolFormat. The name may be one that `get_parser` cannot serve on this machine.
    """
    source = template_source.replace('\\"', '"')
    for texts, name in _MARKERS:
        if all(text in source for text in texts):
            if name is None:
                break
            return name
    else:
        tokens = set(added_tokens)
        for token, name in _TELLING_TOKENS:
            if token in tokens:
                return name
    raise UnknownToolFormat(
        "the chat template shows no tool-call format that is known here; name the parser yourself, one of "
        + ", ".join(PARSERS)
    )
