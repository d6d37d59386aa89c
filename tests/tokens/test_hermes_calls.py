"""Calls in the Hermes format: good ones however they are spelled, and what is said about broken ones."""

from __future__ import annotations

import json

import pytest

from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn
from tests.tokens.tools import GOOD, hermes, summary


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name":"get_order","arguments":{"order_id":"#W1"}}</tool_call>',
        '<tool_call>\n{"arguments": {"order_id": "#W1"}, "name": "get_order"}\n</tool_call>',
        '<tool_call>\n{"name": "get_order", "arguments": "{\\"order_id\\": \\"#W1\\"}"}\n</tool_call>',
        '<tool_call>\n{"name": "get_order", "parameters": {"order_id": "#W1"}}\n</tool_call>',
        '<tool_call>\n[{"name": "get_order", "arguments": {"order_id": "#W1"}}]\n</tool_call>',
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


def test_several_hermes_calls_in_one_list() -> None:
    calls = [{"name": "get_order", "arguments": {"order_id": "#W1"}}, {"name": "list_airports"}, {"arguments": {}}]
    text = f"<tool_call>{json.dumps(calls)}</tool_call>"
    turn = hermes(text)
    assert [(call.name, call.status) for call in turn.calls] == [
        ("get_order", CallStatus.OK),
        ("list_airports", CallStatus.OK),
        ("", CallStatus.INVALID_JSON),
    ]
    assert {call.raw for call in turn.calls} == {text} and turn.content is None


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
    assert call.status == (CallStatus.UNCLOSED if "not closed" in error else CallStatus.INVALID_JSON)


def test_hermes_calls_without_their_opening_tag() -> None:
    body = GOOD.removeprefix("<tool_call>\n")
    turn = hermes(f"{body}\nand\n{body}")
    assert [(call.name, call.status, call.raw) for call in turn.calls] == [("get_order", CallStatus.UNCLOSED, body)] * 2
    assert [call.arguments for call in turn.calls] == [{}, {}]
    assert turn.content == "and"


@pytest.mark.parametrize("text", ["Write {name} or {id}.", "Done.</tool_call> Write {name}.", "</tool_call>"])
def test_braces_and_tags_alone_are_no_hermes_call(text: str) -> None:
    assert hermes(text) == ParsedTurn(content=text, reasoning=None)


def test_hermes_writes_letters_as_they_are() -> None:
    text = get_parser("hermes").format([("get_order", {"order_id": "Zürich ✈"}), ("list_airports", {})])
    assert text == (
        '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "Zürich ✈"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "list_airports", "arguments": {}}\n</tool_call>'
    )


def test_position_in_the_error_counts_from_the_opening_brace() -> None:
    (call,) = hermes('Some text first.\n<tool_call>\n{"name" "get_order"}\n</tool_call>').calls
    assert "':' delimiter at line 1 column 9 (character 8)" in (call.error or "")
