"""Tool-call parsers: every attempt to call becomes a ParsedCall. What holds for all of them is in `test_every_parser`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.chat.completion import read_message
from tau2_slime.tokens.calls.parsers.chat_server import chat_turn, parsed_call
from tau2_slime.tokens.calls.parsers.tagged import MAX_CALLS
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn
from tests.tokens.tools import TOOLS, summary


def hermes(text: str, **kwargs: Any) -> ParsedTurn:
    return get_parser("hermes").parse(text, TOOLS, **kwargs)


GOOD = '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>'


# --- a turn and its parts


def test_text_without_calls_is_content() -> None:
    assert hermes("  Hello there.\n") == ParsedTurn(content="Hello there.", reasoning=None)
    assert hermes(" \n ") == ParsedTurn(content=None, reasoning=None)


def test_several_calls_and_the_text_around_them() -> None:
    turn = hermes(f"Let me look.\n{GOOD}\n{GOOD.replace('#W1', '#W2')}\nDone.<|im_end|>\n")
    assert turn.content == "Let me look.\nDone."
    assert [call.arguments for call in turn.calls] == [{"order_id": "#W1"}, {"order_id": "#W2"}]
    assert [call.raw for call in turn.calls] == [GOOD, GOOD.replace("#W1", "#W2")]
    assert all(call.status == CallStatus.OK and call.error is None for call in turn.calls)


@pytest.mark.parametrize(
    "stop", ["<|im_end|>", "<|endoftext|>", "<|observation|>", "<|user|>", "<|im_end|>\n<|endoftext|>"]
)
def test_stop_tokens_at_the_end_are_not_part_of_the_turn(stop: str) -> None:
    assert hermes("Bye." + stop).content == "Bye."
    assert summary(hermes(GOOD + stop)) == [("get_order", CallStatus.OK)]


def test_reasoning_is_split_off_and_calls_in_it_are_thoughts() -> None:
    turn = hermes(f"<think>\nMaybe {GOOD}?\n</think>\n\nHello.")
    assert (turn.content, turn.calls, turn.reasoning_unclosed) == ("Hello.", [], False)
    assert turn.reasoning == f"Maybe {GOOD}?"
    assert hermes("<think>\n\n</think>\n\nHello.") == ParsedTurn(content="Hello.", reasoning=None)


def test_reasoning_that_the_template_opened() -> None:
    turn = hermes(f"hm, {GOOD}\n</think>\n\n{GOOD}", reasoning_open=True)
    assert turn.reasoning == f"hm, {GOOD}"
    assert (turn.content, summary(turn)) == (None, [("get_order", CallStatus.OK)])
    assert hermes("<think>\nhm</think>Hi", reasoning_open=True) == ParsedTurn(content="Hi", reasoning="hm")


@pytest.mark.parametrize("opened", [True, False])
def test_reasoning_that_was_cut(opened: bool) -> None:
    bad = GOOD.replace("get_order", "no_such_tool")
    for text in ("I will call it and", f"I could write {bad} or <tool_call>{{, and"):
        turn = hermes(("" if opened else "<think>") + text, reasoning_open=opened)
        assert (turn.content, turn.calls, turn.reasoning_unclosed) == (None, [], True)
        assert turn.reasoning == text


@pytest.mark.parametrize("opened", [True, False])
def test_a_call_that_was_made_before_the_thought_is_closed_is_made(opened: bool) -> None:
    """As sglang reads it; what stands around the call is still thought, and is never said."""
    begin = "" if opened else "<think>"
    turn = hermes(begin + f"Like <tool_call>? I call {GOOD} and {GOOD} then", reasoning_open=opened)
    assert summary(turn) == [("get_order", CallStatus.OK)] * 2
    assert (turn.content, turn.reasoning_unclosed) == (None, False)
    assert turn.reasoning == "Like <tool_call>? I call\nand\nthen"


def test_a_message_of_nothing_but_calls_is_read_up_to_a_limit() -> None:
    for text in ("<tool_call>{" * 40_000, '{"name": 1}</tool_call>' * 40_000, '<tool_call>{"a' * 40_000):
        turn = hermes(text)
        assert len(turn.calls) == MAX_CALLS + 1
        assert turn.calls[-1].status is CallStatus.INVALID_JSON
        assert not (turn.content or "").strip()


def test_reasoning_never_reaches_the_content() -> None:
    """τ² would show it to the user, and pay for it."""
    assert hermes("the total is 42\n</think>\n\nHello.") == ParsedTurn(content="Hello.", reasoning="the total is 42")
    turn = hermes(f"{GOOD}\n<think>the total is 42</think>Hello.")
    assert (turn.content, turn.reasoning, summary(turn)) == (
        "Hello.",
        "the total is 42",
        [("get_order", CallStatus.OK)],
    )
    turn = hermes("Hello.<think>the total is 42")
    assert (turn.content, turn.reasoning_unclosed) == ("Hello.", True)


# --- one Hermes call


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"get_order","arguments":{"order_id":"#W1"}}</tool_call>',
        '<tool_call>\n{"arguments": {"order_id": "#W1"}, "name": "get_order"}\n</tool_call>',
        '<tool_call>\n{"name": "get_order", "arguments": "{\\"order_id\\": \\"#W1\\"}"}\n</tool_call>',
        '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W0", "order_id": "#W1"}}\n</tool_call>',
    ],
)
def test_spellings_of_a_good_hermes_call(text: str) -> None:
    (call,) = hermes(text).calls
    assert (call.name, call.arguments, call.status) == ("get_order", {"order_id": "#W1"}, CallStatus.OK)


@pytest.mark.parametrize("more", ["", ', "id": "call_7"', ', "type": "function", "id": "call_7"'])
def test_hermes_call_of_a_tool_without_arguments(more: str) -> None:
    (call,) = hermes(f'<tool_call>\n{{"name": "list_airports"{more}}}\n</tool_call>').calls
    assert (call.name, call.arguments, call.status) == ("list_airports", {}, CallStatus.OK)
    assert call.id == ("call_7" if more else None)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("\n</tool_call>", CallStatus.OK),
        ("", CallStatus.UNCLOSED),
        ("\n<tool_call>", CallStatus.UNCLOSED),
    ],
)
def test_the_id_that_the_model_wrote_is_kept(end: str, status: CallStatus) -> None:
    call = hermes('<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}, "id": "call_7"}' + end).calls[0]
    assert (call.name, call.arguments, call.status, call.id) == ("get_order", {"order_id": "#W1"}, status, "call_7")
    (call,) = hermes('<tool_call>{"name": "get_order", "arguments": [], "id": "call_7"}</tool_call>').calls
    assert (call.status, call.id) == (CallStatus.INVALID_JSON, "call_7")
    (call,) = hermes('<tool_call>{"name": "list_airports", "arguments": {}, "id": 7}</tool_call>').calls
    assert (call.status, call.id) == (CallStatus.OK, None)


@pytest.mark.parametrize(
    "inside", ["</tool_call>", "<tool_call>", "</think>", "<think>", "<|im_end|>", 'a"}}</tool_call>']
)
def test_tags_inside_a_json_string_are_text(inside: str) -> None:
    arguments = {"order_id": inside}
    text = get_parser("hermes").format([("get_order", arguments)])
    turn = hermes(f"{text}\n{text}")
    assert [call.arguments for call in turn.calls] == [arguments, arguments]
    assert (turn.content, turn.reasoning) == (None, None)


def test_lone_surrogates_pass() -> None:
    (call,) = hermes('<tool_call>{"name":"get_order","arguments":{"order_id":"\\ud800"}}</tool_call>').calls
    assert (call.status, call.arguments) == (CallStatus.OK, {"order_id": "\ud800"})


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        ('{"name": "get_order", "arguments": {"order_id": "#W1"}', "get_order", "',' delimiter"),
        ('{"name": "get_order", "arguments": {"order_id": "#W1"}}}', "get_order", "'}'"),
        ('{"name": "get_order", "arguments": {"order_id": NaN}}', "get_order", "NaN"),
        ('{"name": "get_order", "arguments": {"order_id": 1e999}}', "get_order", "1e999"),
        ('{"name": "get_order", "arguments": {"order_id": 00123}}', "get_order", "delimiter"),
        ('{"name": "get_order", "arguments": ' + '{"a": ' * 3000 + "1" + "}" * 3000 + "}", "get_order", "nested"),
        ("{'name': 'get_order', 'arguments': {}}", "", "double quotes at line 1 column 2"),
        ('{"name": "get_order",\n "arguments": {,}}', "get_order", "line 2 column 16"),
        ('{"arguments": {}}', "", 'no "name"'),
        ('{"name": 7, "arguments": {}}', "", '"name" must be'),
        ('{"name": "get_order", "arguments": ["#W1"]}', "get_order", '"arguments" must be a JSON object'),
        ('{"name": "get_order", "arguments": null}', "get_order", '"arguments" must be a JSON object'),
        ('{"name": "get_order", "arguments": "#W1"}', "get_order", "does not hold a JSON object"),
        ("", "", "nothing"),
        ("get_order(#W1)", "", "begins with 'get_order(#W1)'"),
        ('[{"name": "get_order", "arguments": {}}, 3]', "get_order", "begins with '[{"),
        ("[]", "", "begins with '[]'"),
    ],
)
def test_broken_hermes_call_says_what_is_wrong_beside_a_good_one(body: str, name: str, reason: str) -> None:
    raw = f"<tool_call>\n{body}\n</tool_call>"
    turn = hermes(f"{raw}\n{GOOD}")
    assert summary(turn) == [(name, CallStatus.INVALID_JSON), ("get_order", CallStatus.OK)]
    assert turn.calls[0].raw == raw
    assert reason in (turn.calls[0].error or "")
    assert turn.content is None


UNREADABLE = "The tool call is not valid JSON: "
SHAPE = 'write {"name": <tool name>, "arguments": {…}}'


@pytest.mark.parametrize(
    ("text", "name", "error"),
    [
        (
            f'<tool_call>\n{{"name": "get_order", "arguments": {{}}}} {"no " * 20}</tool_call>',
            "get_order",
            f"{UNREADABLE}the object ends at character 38, but {('no ' * 20)[:40]!r} follows before </tool_call>.",
        ),
        (
            "<tool_call>" + "get" * 9 + "</tool_call>",
            "",
            f"{UNREADABLE}it begins with 'getgetgetgetgetgetge'; {SHAPE}.",
        ),
        (
            '<tool_call>{"name": "a\\q", </tool_call>',
            "",
            f"{UNREADABLE}Invalid \\escape at line 1 column 12 (character 11).",
        ),
        (
            '<tool_call>{"name": "", "arguments": {}}</tool_call>',
            "",
            'The tool call is not valid: "name" must be a non-empty string.',
        ),
        (
            '<tool_call>{"name": "get_order", "argum',
            "get_order",
            "The tool call is not closed: </tool_call> is missing, and the call is incomplete "
            "(Unterminated string starting at line 1 column 23 (character 22)).",
        ),
    ],
)
def test_what_the_model_reads_about_a_broken_hermes_call(text: str, name: str, error: str) -> None:
    (call,) = hermes(text).calls
    assert (call.name, call.arguments, call.error) == (name, {}, error)


def test_hermes_calls_without_their_opening_tag() -> None:
    body = GOOD.removeprefix("<tool_call>\n")
    turn = hermes(f"{body}\nand\n{body}")
    assert [(call.name, call.status, call.raw) for call in turn.calls] == [("get_order", CallStatus.UNCLOSED, body)] * 2
    assert turn.content == "and"


@pytest.mark.parametrize("text", ["Write {name} or {id}.", "Done.</tool_call> Write {name}.", "</tool_call>"])
def test_braces_and_tags_alone_are_no_hermes_call(text: str) -> None:
    assert hermes(text) == ParsedTurn(content=text, reasoning=None)


def test_hermes_writes_letters_as_they_are() -> None:
    assert '"Zürich ✈"' in get_parser("hermes").format([("get_order", {"order_id": "Zürich ✈"})])


def test_position_in_the_error_counts_from_the_opening_brace() -> None:
    (call,) = hermes('Some text first.\n<tool_call>\n{"name" "get_order"}\n</tool_call>').calls
    assert "':' delimiter at line 1 column 9 (character 8)" in (call.error or "")


# --- the XML-like formats

GLM_GOOD = "<tool_call>get_order\n<arg_key>order_id</arg_key>\n<arg_value>#W1</arg_value>\n</tool_call>"


def test_qwen_xml_values_are_verbatim_between_two_line_breaks() -> None:
    parser = get_parser("qwen_xml")
    text = "<tool_call>\n<function=get_order>\n<parameter=order_id>\n\n 007 \n\n</parameter>\n</function>\n</tool_call>"
    (call,) = parser.parse(text, TOOLS).calls
    assert (call.status, call.arguments) == (CallStatus.OK, {"order_id": "\n 007 \n"})
    text = "<tool_call><function=get_order><parameter=order_id>007</parameter></function></tool_call>"
    (call,) = parser.parse(text, TOOLS).calls
    assert (call.status, call.arguments) == (CallStatus.OK, {"order_id": "007"})


@pytest.mark.parametrize(
    ("text", "status", "reason"),
    [
        (
            "<tool_call>\n<function=send_certificate>\n<parameter=user_id>\nx\n<parameter=amount>\n1\n</parameter>\n"
            "</function>\n</tool_call>",
            CallStatus.UNCLOSED,
            "</parameter> is missing",
        ),
        (
            "<tool_call>\n<function=send_certificate>\n<parameter=amount>\n1\n</parameter>\n</tool_call>",
            CallStatus.UNCLOSED,
            "</function> is missing",
        ),
        ('<tool_call>\n{"name": "send_certificate"}\n</tool_call>', CallStatus.INVALID_JSON, "<function=NAME>"),
        (
            "<tool_call>\n<function=send_certificate>\namount=1\n</function>\n</tool_call>",
            CallStatus.INVALID_JSON,
            "not 'amount=1",
        ),
    ],
)
def test_broken_qwen_xml_call(text: str, status: CallStatus, reason: str) -> None:
    (call,) = get_parser("qwen_xml").parse(text, TOOLS).calls
    assert call.status == status
    assert reason in (call.error or "")


@pytest.mark.parametrize(
    ("text", "arguments", "missing"),
    [
        ("<arg_key>a</arg_key>\n<arg_value>x\n<arg_key>b</arg_key>\n<arg_value>y</arg_value>\n", {}, "</arg_value>"),
        (
            "<arg_key>a</arg_key>\n<arg_value>x</arg_value>\n<arg_key>b\n<arg_value>y</arg_value>\n",
            {"a": "x"},
            "</arg_key>",
        ),
        ("<arg_key>a</arg_key>\n<arg_value>x<arg_value>y</arg_value>\n", {}, "</arg_value>"),
        ("<arg_key>a</arg_key>\n<arg_value>x\n", {}, "</arg_value>"),
    ],
)
def test_glm_element_that_does_not_end_is_unclosed(text: str, arguments: dict[str, str], missing: str) -> None:
    turn = get_parser("glm").parse(f"<tool_call>list_airports\n{text}</tool_call>\n{GLM_GOOD}", TOOLS)
    assert summary(turn) == [("list_airports", CallStatus.UNCLOSED), ("get_order", CallStatus.OK)]
    assert turn.calls[0].arguments == arguments
    assert f"{missing} is missing" in (turn.calls[0].error or "")


def test_glm_keys_and_names_may_be_padded_and_values_are_verbatim() -> None:
    text = "<tool_call> get_order \n<arg_key>\n order_id </arg_key>\n<arg_value> #W1\n</arg_value>\n</tool_call>"
    (call,) = get_parser("glm").parse(text, TOOLS).calls
    assert (call.name, call.arguments, call.status) == ("get_order", {"order_id": " #W1\n"}, CallStatus.OK)


def test_glm_without_line_breaks() -> None:
    parser = get_parser("glm")
    text = (
        "<tool_call>send_certificate<arg_key>user_id</arg_key><arg_value>496</arg_value>"
        "<arg_key>amount</arg_key><arg_value>50</arg_value></tool_call><tool_call>list_airports</tool_call>"
    )
    turn = parser.parse(text, TOOLS)
    assert summary(turn) == [("send_certificate", CallStatus.OK), ("list_airports", CallStatus.OK)]
    assert turn.calls[0].arguments == {"user_id": "496", "amount": 50}


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        (
            "<tool_call>get_order\n<arg_key>order_id</arg_key>\n#W1\n</tool_call>",
            "get_order",
            "<arg_value> must follow",
        ),
        ("<tool_call>get_order\norder_id: #W1\n</tool_call>", "get_order", "not 'order_id"),
        ('<tool_call>\n{"name": "get_order"}\n</tool_call>', "", "name must follow"),
        ("<tool_call></tool_call>", "", "name must follow"),
    ],
)
def test_broken_glm_call(text: str, name: str, reason: str) -> None:
    (call,) = get_parser("glm").parse(text, TOOLS).calls
    assert (call.name, call.status) == (name, CallStatus.INVALID_JSON)
    assert reason in (call.error or "")


# --- tools and schemas


def test_a_number_for_a_string_is_a_number_as_it_was_said() -> None:
    (call,) = hermes('<tool_call>{"name":"get_order","arguments":{"order_id":1.50}}</tool_call>').calls
    assert (call.status, call.arguments) == (CallStatus.BAD_ARGUMENTS, {"order_id": 1.5})


@pytest.mark.parametrize("name", ["hermes", "qwen_xml", "glm"])
def test_a_number_beyond_every_float_is_still_a_call(name: str) -> None:
    text = get_parser(name).format([("send_certificate", {"user_id": "sara", "amount": int("9" * 400)})])
    (call,) = get_parser(name).parse(text, TOOLS).calls
    assert (call.status, call.arguments["amount"]) == (CallStatus.OK, int("9" * 400))


# --- what a chat-completion server returns


@pytest.mark.parametrize("blank", ["", "  ", "\n", "{}"])
def test_a_servers_call_without_arguments(blank: str) -> None:
    call = parsed_call("list_airports", blank, TOOLS, "call_1")
    assert (call.name, call.arguments, call.status, call.raw, call.id) == (
        "list_airports",
        {},
        CallStatus.OK,
        blank,
        "call_1",
    )


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("", "{}", "has no name"),
        ("get_order", '{"order_id": ', "not valid JSON"),
        ("get_order", '["#W1"]', "must be a JSON object"),
        ("get_order", "null", "must be a JSON object"),
    ],
)
def test_a_servers_broken_call_keeps_its_name_text_and_id(name: str, arguments: str, reason: str) -> None:
    call = parsed_call(name, arguments, TOOLS, "call_1")
    assert (call.name, call.arguments, call.status) == (name, {}, CallStatus.INVALID_JSON)
    assert (call.raw, call.id) == (arguments, "call_1")
    assert reason in (call.error or "")


def test_a_servers_reasoning_is_cut_off_the_text_and_what_it_set_apart_wins() -> None:
    def turn(content: str | None, apart: str | None = None, *calls: dict[str, Any]) -> ParsedTurn:
        return chat_turn(read_message({"content": content, "reasoning_content": apart, "tool_calls": [*calls]}), TOOLS)

    assert turn(" Hello. ") == ParsedTurn(" Hello. ", None)
    assert turn(" Hello. ", "hm") == ParsedTurn(" Hello. ", "hm")
    assert turn("<think>hm</think>\n\nHello.") == ParsedTurn("Hello.", "hm")
    assert turn("hm</think>\n\nHello.") == ParsedTurn("Hello.", "hm")
    assert turn("[THINK]hm[/THINK]Hello.") == ParsedTurn("Hello.", "hm")
    assert turn("<think>text</think>Hello.", "apart") == ParsedTurn("Hello.", "apart")
    assert turn("<think>hm") == ParsedTurn("", "hm", reasoning_unclosed=True)
    call = {"id": "c", "function": {"name": "list_airports", "arguments": "{}"}}
    assert turn(None, "hm", call) == ParsedTurn(None, "hm", [parsed_call("list_airports", "{}", TOOLS, "c")])


def test_arguments_that_a_server_encoded_twice_are_read_as_sampled_ones() -> None:
    twice = json.dumps('{"a": 1}')
    sampled = get_parser("hermes").parse(
        f'<tool_call>{{"name": "list_airports", "arguments": {twice}}}</tool_call>', TOOLS
    )
    served = parsed_call("list_airports", twice, TOOLS)
    (call,) = sampled.calls
    assert (served.arguments, served.status) == (call.arguments, call.status)
