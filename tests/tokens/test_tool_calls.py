"""Tool-call parsers: every attempt to call becomes a ParsedCall. What holds for all of them is in `test_every_parser`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tau2_slime.chat.completion import read_message
from tau2_slime.tokens.calls.action_text import action_format
from tau2_slime.tokens.calls.parsers.chat_server import chat_turn, parsed_call
from tau2_slime.tokens.calls.parsers.tagged import MAX_CALLS
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn
from tests.tokens.tools import GOOD, TOOLS, hermes, summary

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
    assert hermes(f"<think>I call {GOOD}", reasoning_open=opened).reasoning == "I call"
    assert hermes(begin + "<tool_call>? " * MAX_CALLS + GOOD, reasoning_open=opened).reasoning_unclosed


def test_a_message_of_nothing_but_calls_is_read_up_to_a_limit() -> None:
    for text in ("<tool_call>{" * 40_000, '{"name": 1}</tool_call>' * 40_000, '<tool_call>{"a' * 40_000):
        turn = hermes(text)
        assert len(turn.calls) == MAX_CALLS + 1
        assert turn.calls[-1].status is CallStatus.INVALID_JSON
        assert not (turn.content or "").strip()
    for listed in (MAX_CALLS, MAX_CALLS + 1, 5000):
        turn = hermes(f"<tool_call>{json.dumps([{'name': 'list_airports', 'arguments': {}}] * listed)}</tool_call>")
        assert summary(turn)[:MAX_CALLS] == [("list_airports", CallStatus.OK)] * MAX_CALLS
        assert summary(turn)[MAX_CALLS:] == ([("", CallStatus.INVALID_JSON)] if listed > MAX_CALLS else [])
    unopened = GOOD.removeprefix("<tool_call>\n")
    for call, before, rest in ((GOOD, "Hello.", "<tool_call>{"), (unopened, "Hello.", f"{unopened} Bye.")):
        turn = hermes(call * MAX_CALLS + before + rest)
        assert turn.content == "Hello."
        assert turn.calls[-1] == ParsedCall(
            name="",
            arguments={},
            status=CallStatus.INVALID_JSON,
            raw=rest,
            error=f"One message may hold {MAX_CALLS} tool calls; what follows them was not read.",
        )


def test_reasoning_never_reaches_the_content() -> None:
    """τ² would show it to the user, and pay for it."""
    assert hermes("the total is 42\n</think>\n\nHello.") == ParsedTurn(content="Hello.", reasoning="the total is 42")
    turn = hermes(f"{GOOD}\n<think>the total is 42</think>Hello.")
    assert (turn.content, turn.reasoning, summary(turn)) == (
        "Hello.",
        "the total is 42",
        [("get_order", CallStatus.OK)],
    )
    turn = hermes(f"{GOOD}Hello.<think>the total is 42")
    assert (turn.content, turn.reasoning, turn.reasoning_unclosed) == ("Hello.", "the total is 42", True)
    assert summary(turn) == [("get_order", CallStatus.OK)]
    assert hermes("</think>\nHello.") == ParsedTurn(content="Hello.", reasoning=None)
    assert hermes("the total</think>is 42</think>Hello.") == ParsedTurn("Hello.", "the total\nis 42")


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
    assert call.error is not None and call.error.startswith("The ") and call.error.endswith(".")


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


def test_a_server_whose_policy_acts_in_text_is_read_by_that_format_and_its_own_calls_are_refused() -> None:
    actions = action_format("react")
    assert actions is not None

    def turn(content: str | None, apart: str | None = None, *calls: dict[str, Any]) -> ParsedTurn:
        said = read_message({"content": content, "reasoning_content": apart, "tool_calls": [*calls]})
        return chat_turn(said, TOOLS, actions)

    text = 'Thought: Look.\nAction: {"name": "list_airports", "arguments": {}}'
    call = {"id": "c", "function": {"name": "get_order", "arguments": "[1]"}}
    acted = turn(text, "hm", call)
    in_text, refused = acted.calls
    assert (acted.content, acted.reasoning) == (None, "hm\nLook.")
    assert (in_text.name, in_text.arguments, in_text.status) == ("list_airports", {}, CallStatus.OK)
    assert (refused.name, refused.arguments, refused.status, refused.raw) == ("", {}, CallStatus.INVALID_JSON, "[1]")
    assert "write the action as text" in (refused.error or "")
    assert turn(text) == actions.parse(text, TOOLS)
    assert turn(None) == actions.parse("", TOOLS) and turn(None).reasoning is None
    assert turn("<think>hm") == ParsedTurn("", "hm", reasoning_unclosed=True)
    unclosed = turn("<think>hm", None, {**call, "function": {"name": "list_airports", "arguments": "{}"}})
    assert summary(unclosed) == [("", CallStatus.INVALID_JSON)] and unclosed.reasoning_unclosed


def test_arguments_that_a_server_encoded_twice_are_read_as_sampled_ones() -> None:
    twice = json.dumps('{"a": 1}')
    sampled = get_parser("hermes").parse(
        f'<tool_call>{{"name": "list_airports", "arguments": {twice}}}</tool_call>', TOOLS
    )
    served = parsed_call("list_airports", twice, TOOLS)
    (call,) = sampled.calls
    assert (served.arguments, served.status) == (call.arguments, call.status)
