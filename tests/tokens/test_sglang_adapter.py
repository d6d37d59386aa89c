"""What the adapter adds to sglang's parsers, shown with a stand-in for sglang, which needs torch and a GPU's libraries."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tau2_slime.tokens.calls.parsers.tagged import MAX_CALLS
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn, ParserUnavailable, ToolCallParser
from tests.tokens.tools import TOOLS, summary

SWITCH = "SGLANG_FORWARD_UNKNOWN_TOOLS"
Found = list[tuple[str | None, str]]


class FakeSglang:
    """Answers with what a test puts in, and remembers what it was given."""

    def __init__(self) -> None:
        self.said, self.found, self.failure = "", [], None  # type: tuple[str, Found, Exception | None]
        self.sees_a_call = True
        self.texts: list[str] = []
        self.names: list[str] = []
        self.switches: list[str | None] = []

    def modules(self) -> dict[str, ModuleType]:
        fake = self

        class FunctionCallParser:
            ToolCallParserEnum = dict.fromkeys(("kimi_k2", "qwen25", "mistral", "gpt-oss", "brand_new"))

            def __init__(self, tools: list[Any], name: str) -> None:
                assert [tool.function["name"] for tool in tools] == [tool["function"]["name"] for tool in TOOLS]
                fake.names.append(name)

            def parse_non_stream(self, text: str) -> tuple[str, list[Any]]:
                fake.texts.append(text)
                fake.switches.append(os.environ.get(SWITCH))
                if fake.failure is not None:
                    raise fake.failure
                return fake.said, [SimpleNamespace(name=name, parameters=given) for name, given in fake.found]

            def has_tool_call(self, text: str) -> bool:
                assert text == fake.texts[-1]
                return fake.sees_a_call

        class ReasoningParser:
            def __init__(self, name: str) -> None:
                assert name == "gpt-oss"

            def parse_non_stream(self, text: str) -> tuple[str | None, str | None]:
                reasoning, end, rest = text.partition("<|end|>")
                return reasoning.rpartition("<|message|>")[2], rest if end else None

        parts = {
            "sglang.srt.entrypoints.openai.protocol": {"Tool": SimpleNamespace},
            "sglang.srt.function_call.function_call_parser": {"FunctionCallParser": FunctionCallParser},
            "sglang.srt.parser.reasoning_parser": {"ReasoningParser": ReasoningParser},
        }
        made: dict[str, ModuleType] = {}
        for path, attributes in parts.items():
            names = path.split(".")
            for size in range(1, len(names) + 1):
                made.setdefault(".".join(names[:size]), ModuleType(".".join(names[:size])))
            vars(made[path]).update(attributes)
        return made


@pytest.fixture
def sglang(monkeypatch: pytest.MonkeyPatch) -> FakeSglang:
    fake = FakeSglang()
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(SWITCH, raising=False)
    return fake


def parser(name: str) -> ToolCallParser:
    return get_parser(f"sglang:{name}")


CALL = '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>'
ORDER = ("get_order", '{"order_id": "#W1"}')


def test_the_name_is_the_one_that_was_chosen_and_an_unknown_one_names_the_known(sglang: FakeSglang) -> None:
    assert parser("qwen25").name == "sglang:qwen25"
    with pytest.raises(
        ParserUnavailable, match="no tool-call parser 'glm45'; it has brand_new, gpt-oss, kimi_k2, mistral"
    ):
        parser("glm45")
    with pytest.raises(NotImplementedError, match=r"sglang:qwen25 only reads calls; .*hermes"):
        parser("qwen25").format([])


def test_good_calls_are_checked_and_text_and_reasoning_kept_apart(sglang: FakeSglang) -> None:
    sglang.said, sglang.found = "Wait.", [ORDER, ("get_flight", "{}"), ("get_order", '{"order_id": 7, "x": 1}')]
    turn = parser("qwen25").parse(f"<think>hm</think>Wait.{CALL * 3}<|im_end|>", TOOLS)
    assert (turn.content, turn.reasoning) == ("Wait.", "hm")
    assert summary(turn) == [
        ("get_order", CallStatus.OK),
        ("get_flight", CallStatus.UNKNOWN_TOOL),
        ("get_order", CallStatus.BAD_ARGUMENTS),
    ]
    assert turn.calls[2].arguments == {"order_id": 7, "x": 1}
    assert {call.raw for call in turn.calls} == {f"Wait.{CALL * 3}"}
    assert (sglang.names, sglang.texts) == (["qwen25"], [f"Wait.{CALL * 3}"])


@pytest.mark.parametrize("name", ["qwen25", "mistral"])
def test_a_list_of_hundreds_of_calls_is_read_up_to_a_limit(sglang: FakeSglang, name: str) -> None:
    sglang.found = [ORDER] * 500
    read = summary(parser(name).parse("[TOOL_CALLS] [...]", TOOLS))
    assert read == [*[("get_order", CallStatus.OK)] * MAX_CALLS, ("", CallStatus.INVALID_JSON)]


def test_calls_of_unknown_tools_are_asked_for_and_the_environment_is_left_as_it_was(
    sglang: FakeSglang, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser("qwen25").parse("Hello.", TOOLS)
    assert SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "0")
    sglang.failure = RuntimeError("broken")
    parser("qwen25").parse("Hello.", TOOLS)
    assert os.environ[SWITCH] == "0"
    assert sglang.switches == ["1", "1"]


def test_a_call_that_sglang_drops_is_reported(sglang: FakeSglang) -> None:
    sglang.found = [ORDER]
    turn = parser("qwen25").parse(CALL + "<tool_call>\n{broken", TOOLS)
    assert summary(turn) == [("get_order", CallStatus.OK), ("", CallStatus.INVALID_JSON)]
    assert (turn.calls[1].error or "").startswith("A tool call in this message cannot be read: write every call")
    assert (turn.calls[1].arguments, turn.calls[1].raw) == ({}, CALL + "<tool_call>\n{broken")
    sglang.found = [("get_order", '{"order_id": "<tool_call>"}')]  # text of an argument begins no call
    assert len(parser("qwen25").parse(CALL.replace("#W1", "<tool_call>"), TOOLS).calls) == 1


@pytest.mark.parametrize("name", ["qwen25", "brand_new"])
def test_what_sglang_cannot_read_is_not_said_to_the_user(sglang: FakeSglang, name: str) -> None:
    sglang.said = "<tool_call>{broken"
    turn = parser(name).parse("<tool_call>{broken", TOOLS)
    assert (turn.content, summary(turn)) == (None, [("", CallStatus.INVALID_JSON)])
    assert (turn.calls[0].error or "").startswith("A tool call in this message cannot be read: write every call")
    sglang.failure = ValueError("no such shape")
    turn = parser(name).parse("<tool_call>{broken", TOOLS)
    assert (turn.content, summary(turn)) == (None, [("", CallStatus.INVALID_JSON)])
    assert "cannot be read (no such shape):" in (turn.calls[0].error or "")
    sglang.failure = KeyError()
    assert "(KeyError)" in (parser(name).parse("<tool_call>", TOOLS).calls[0].error or "")


def test_text_without_a_call_is_said(sglang: FakeSglang) -> None:
    sglang.said, sglang.sees_a_call = "Hello.<think>x</think>", False
    assert parser("qwen25").parse("Hello.<think>x</think>", TOOLS) == ParsedTurn("Hello.", "x")
    assert parser("qwen25").parse("hm", TOOLS, reasoning_open=True) == ParsedTurn(None, "hm", reasoning_unclosed=True)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ((None, "{}"), "A call names no tool."),
        (("", '{"a": 1}'), "A call names no tool."),
        (("get_order", "[1]"), "The arguments of the call of get_order cannot be read: they are not a JSON object."),
        (("get_order", "{"), "The arguments of the call of get_order cannot be read: Expecting property name"),
    ],
)
def test_a_call_that_sglang_passes_on_broken(sglang: FakeSglang, found: tuple[str | None, str], error: str) -> None:
    sglang.found = [found]
    (call,) = parser("brand_new").parse("something", TOOLS).calls
    assert (call.name, call.arguments, call.status) == (found[0] or "", {}, CallStatus.INVALID_JSON)
    assert call.raw == "something"
    assert (call.error or "").startswith(error)


def test_kimis_own_ids_are_kept(sglang: FakeSglang) -> None:
    sglang.found = [ORDER, ("list_airports", "{}")]
    begin, argument = "<|tool_call_begin|>", "<|tool_call_argument_begin|>"
    text = f"{begin} functions.get_order:4 {argument}{ORDER[1]}{begin}functions.list_airports:5{argument}{{}}"
    turn = parser("kimi_k2").parse(text, TOOLS)
    assert [call.id for call in turn.calls] == ["functions.get_order:4", "functions.list_airports:5"]
    sglang.found = [("list_airports", "{}")]  # sglang could not read the first
    turn = parser("kimi_k2").parse(text, TOOLS)
    assert [(call.name, call.id) for call in turn.calls] == [("list_airports", "functions.list_airports:5"), ("", None)]
    sglang.found = [("list_airports", '{"x": 1}')]  # whose arguments are nobody's
    assert [call.id for call in parser("kimi_k2").parse(text, TOOLS).calls] == [None, None]


def test_a_call_that_was_made_before_the_thought_is_closed_is_made(sglang: FakeSglang) -> None:
    sglang.found = [ORDER]
    turn = parser("qwen25").parse(f"I call {CALL}", TOOLS, reasoning_open=True)
    assert (turn.content, turn.reasoning, summary(turn)) == (None, "I call", [("get_order", CallStatus.OK)])
    turn = parser("qwen25").parse(CALL, TOOLS, reasoning_open=True)
    assert (turn.reasoning, summary(turn)) == (None, [("get_order", CallStatus.OK)])
    assert parser("qwen25").parse(f"<think>I call {CALL}", TOOLS).reasoning == "I call"
    parser("qwen25").parse(f"I call {CALL} and {CALL}", TOOLS, reasoning_open=True)
    assert sglang.texts[-1] == f"{CALL} and {CALL}"
    turn = parser("brand_new").parse("I call something", TOOLS, reasoning_open=True)  # nobody knows how a call begins
    assert turn == ParsedTurn(None, "I call something", reasoning_unclosed=True)
    sglang.found = [("no_such_tool", "{}")]
    turn = parser("qwen25").parse(f"<think>I could call {CALL}", TOOLS)
    assert (turn.content, turn.calls, turn.reasoning_unclosed) == (None, [], True)


def test_a_message_of_nothing_but_calls_is_cut_before_sglang_reads_it(sglang: FakeSglang) -> None:
    parser("qwen25").parse("<tool_call>{" * 40_000, TOOLS)
    assert sglang.texts[0].count("<tool_call>") == MAX_CALLS + 1
    assert sglang.texts[0].endswith("<tool_call>")
    parser("qwen25").parse(CALL * MAX_CALLS, TOOLS)
    assert sglang.texts[1] == CALL * MAX_CALLS


def test_the_switch_survives_two_threads_that_parse(sglang: FakeSglang) -> None:
    with ThreadPoolExecutor(8) as pool:
        turns = list(pool.map(lambda _: parser("qwen25").parse(CALL, TOOLS), range(400)))
    assert len(turns) == 400 and set(sglang.switches) == {"1"}
    assert SWITCH not in os.environ


def test_mistrals_text_is_given_as_its_parser_wants_it(sglang: FakeSglang) -> None:
    sglang.found = [ORDER]
    turn = parser("mistral").parse("[THINK]hm[/THINK][TOOL_CALLS]get_order[CALL_ID]123[ARGS]{}", TOOLS)
    assert (turn.reasoning, summary(turn)) == ("hm", [("get_order", CallStatus.OK)])
    parser("mistral").parse('[TOOL_CALLS][{"name"', TOOLS)
    assert sglang.texts == ["[TOOL_CALLS]get_order[ARGS]{}", '[TOOL_CALLS] [{"name"']


CHANNEL = "<|channel|>analysis<|message|>hm<|end|>"
HARMONY_CALL = "<|start|>assistant<|channel|>commentary to=functions.get_order <|constrain|>json<|message|>{}"


@pytest.mark.parametrize("begin", [CHANNEL, " " + CHANNEL, "<|start|>assistant" + CHANNEL])
@pytest.mark.parametrize("end", ["", "<|call|>"])
def test_gpt_oss_gets_back_what_the_decoded_turn_lacks(sglang: FakeSglang, begin: str, end: str) -> None:
    sglang.found = [ORDER]
    turn = parser("gpt-oss").parse(begin + HARMONY_CALL + end, TOOLS)
    assert (turn.reasoning, turn.content, summary(turn)) == ("hm", None, [("get_order", CallStatus.OK)])
    assert sglang.texts == [HARMONY_CALL + "<|call|>"]
    parser("gpt-oss").parse(begin + HARMONY_CALL + "<|call|> and more", TOOLS)
    assert sglang.texts[1] == HARMONY_CALL + "<|call|> and more"


def test_gpt_oss_says_something_or_is_cut_while_it_thinks(sglang: FakeSglang) -> None:
    sglang.said, sglang.sees_a_call = "Hello.", False
    said = CHANNEL + "<|start|>assistant<|channel|>final<|message|>Hello."
    assert parser("gpt-oss").parse(said + "<|return|>", TOOLS) == ParsedTurn("Hello.", "hm")
    assert sglang.texts == [said.removeprefix(CHANNEL)]
    cut = parser("gpt-oss").parse("<|channel|>analysis<|message|>hm", TOOLS)
    assert cut == ParsedTurn(None, "hm", reasoning_unclosed=True)
    sglang.said = ""
    assert parser("gpt-oss").parse("", TOOLS) == ParsedTurn(None, None) and sglang.texts[-1] == ""
    assert parser("gpt-oss").parse(CHANNEL + " ", TOOLS).reasoning == "hm" and not sglang.texts[-1].strip()
