"""sglang's own parsers behind ours: they lose no call. Skipped where sglang is not installed."""

from __future__ import annotations

import importlib.util

import pytest

from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn, ParserUnavailable
from tests.tokens.tools import TOOLS, summary

GOOD = '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>'


def has_sglang() -> bool:
    if importlib.util.find_spec("sglang") is None:
        return False
    try:
        import sglang.srt.function_call.function_call_parser  # noqa: F401
    except ImportError:
        return False
    return True


needs_sglang = pytest.mark.skipif(not has_sglang(), reason="sglang (with torch and triton) cannot be imported")


@pytest.mark.skipif(has_sglang(), reason="sglang is installed")
def test_without_sglang_the_error_names_the_fix() -> None:
    with pytest.raises(ParserUnavailable, match=r"sglang:kimi_k2.*container.*hermes"):
        get_parser("sglang:kimi_k2")


KIMI = "<|tool_calls_section_begin|>{}<|tool_calls_section_end|>"
KIMI_CALL = "<|tool_call_begin|>functions.{}:{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
DEEPSEEK_CALL = "<｜tool▁call▁begin｜>{}<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
MINIMAX = (
    '<minimax:tool_call>\n<invoke name="{}">\n<parameter name="order_id">#W1</parameter>\n</invoke>\n'
    "</minimax:tool_call>"
)
HARMONY = (
    "<|channel|>analysis<|message|>hm<|end|>"
    "<|start|>assistant<|channel|>commentary to=functions.{} <|constrain|>json<|message|>{}"
)
ARGUMENTS = '{"order_id": "#W1"}'


@needs_sglang
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kimi_k2", "<think>hm</think>" + KIMI.format(KIMI_CALL.format("get_order", 3, ARGUMENTS))),
        ("deepseekv31", "<think>hm</think><｜tool▁calls▁begin｜>" + DEEPSEEK_CALL.format("get_order", ARGUMENTS)),
        ("llama3", '<think>hm</think>{"name": "get_order", "parameters": {"order_id": "#W1"}}'),
        ("minimax-m2", "<think>hm</think>" + MINIMAX.format("get_order")),
        ("mistral", '[THINK]hm[/THINK][TOOL_CALLS][{"name": "get_order", "arguments": ' + ARGUMENTS + "}]"),
        ("mistral", "[THINK]hm[/THINK][TOOL_CALLS]get_order[CALL_ID]123456789[ARGS]" + ARGUMENTS),
        ("gpt-oss", HARMONY.format("get_order", ARGUMENTS)),
        ("gpt-oss", HARMONY.format("get_order", ARGUMENTS) + "<|call|>"),
    ],
)
def test_sglang_reads_a_good_call(name: str, text: str) -> None:
    turn = get_parser(f"sglang:{name}").parse(text, TOOLS)
    assert summary(turn) == [("get_order", CallStatus.OK)]
    assert turn.calls[0].arguments == {"order_id": "#W1"}
    assert (turn.content, turn.reasoning) == (None, "hm")


@needs_sglang
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kimi_k2", KIMI.format(KIMI_CALL.format("get_order", 0, '{"order_id": }'))),
        ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_order:0"),
        ("deepseekv31", "<｜tool▁calls▁begin｜>" + DEEPSEEK_CALL.format("get_order", '{"order_id": ')),
        ("llama3", '{"name": "get_order", "parameters": {"order_id": '),
        ("minimax-m2", '<minimax:tool_call>\n<invoke name="get_order">\n<parameter'),
        ("qwen25", '<tool_call>\n{"name": "get_order", "arguments": }\n</tool_call>'),
        ("mistral", '[TOOL_CALLS][{"name": "get_order", "arguments": '),
        ("gpt-oss", HARMONY.format("get_order", '{"order_id": ')),
    ],
)
def test_sglang_drops_nothing(name: str, text: str) -> None:
    turn = get_parser(f"sglang:{name}").parse(text, TOOLS)
    assert [call.status for call in turn.calls] == [CallStatus.INVALID_JSON]
    assert turn.calls[0].error
    assert turn.content is None


@needs_sglang
def test_sglang_good_and_bad_calls_side_by_side() -> None:
    text = f'Wait.\n{GOOD}\n<tool_call>\n{{"name": "get_order", "arguments": }}\n</tool_call>'
    turn = get_parser("sglang:qwen25").parse(text, TOOLS)
    assert summary(turn) == [("get_order", CallStatus.OK), ("", CallStatus.INVALID_JSON)]
    assert turn.content == "Wait."


@needs_sglang
def test_sglang_unknown_tools_bad_arguments_and_ids() -> None:
    calls = KIMI_CALL.format("get_flight", 4, "{}") + KIMI_CALL.format("get_order", 5, '{"order_id": 7, "x": 1}')
    turn = get_parser("sglang:kimi_k2").parse("Wait." + KIMI.format(calls), TOOLS)
    assert summary(turn) == [("get_flight", CallStatus.UNKNOWN_TOOL), ("get_order", CallStatus.BAD_ARGUMENTS)]
    assert [call.id for call in turn.calls] == ["functions.get_flight:4", "functions.get_order:5"]
    assert turn.calls[1].arguments == {"order_id": 7, "x": 1}
    assert turn.content == "Wait."
    (call,) = get_parser("sglang:minimax-m2").parse(MINIMAX.format("get_flight"), TOOLS).calls
    assert (call.name, call.status) == ("get_flight", CallStatus.UNKNOWN_TOOL)


@needs_sglang
def test_sglang_plain_text_and_cut_reasoning() -> None:
    for name in ("kimi_k2", "deepseekv31", "llama3", "minimax-m2", "mistral"):
        assert get_parser(f"sglang:{name}").parse("Hello.<think>x</think>", TOOLS).calls == []
        assert get_parser(f"sglang:{name}").parse("Hello.", TOOLS) == ParsedTurn("Hello.", None)
    assert get_parser("sglang:kimi_k2").parse("Hello.<think>x</think>", TOOLS) == ParsedTurn("Hello.", "x")
    assert get_parser("sglang:kimi_k2").parse("hm", TOOLS, reasoning_open=True) == ParsedTurn(
        None, "hm", reasoning_unclosed=True
    )
    harmony = get_parser("sglang:gpt-oss")
    assert harmony.parse("<|channel|>analysis<|message|>hm", TOOLS) == ParsedTurn(None, "hm", reasoning_unclosed=True)
    said = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello."
    assert harmony.parse(said, TOOLS) == ParsedTurn("Hello.", "hm")
    with pytest.raises(ParserUnavailable, match=r"it has .*kimi_k2"):
        get_parser("sglang:nonsense")
