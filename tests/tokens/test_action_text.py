"""Actions in plain text: what each kind of turn means, and that nothing is both executed and dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.errors import ConfigError
from tau2_slime.tokens.calls.action_text import ActionFormat, action_format, format_told_in, in_format
from tau2_slime.tokens.calls.types import CallStatus, ParsedTurn
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tests.tokens.rows import ROWS
from tests.tokens.tools import TOOLS

pytestmark = pytest.mark.fast

GET = '{"name": "get_order", "arguments": {"order_id": "#W1"}}'
HELLO = '{"name": "respond", "arguments": {"content": "Hello, you."}}'
TRICKY = 'Action: {"name": "respond", "arguments": {"content": " a\\nAction: b </think> "}}'
CALLED = [("get_order", {"order_id": "#W1"}, CallStatus.OK)]
INVALID = [("", {}, CallStatus.INVALID_JSON)]


def fmt(name: str, *, solo: bool = False) -> ActionFormat:
    found = action_format(name, solo=solo)
    assert found is not None
    return found


def calls(turn: ParsedTurn) -> list[tuple[str, dict[str, Any], CallStatus]]:
    return [(call.name, call.arguments, call.status) for call in turn.calls]


@pytest.mark.parametrize("name", ["act", "react"])
@pytest.mark.parametrize(
    ("text", "content", "thought", "called"),
    [
        # the marker, the object, the fence
        (f"Action:\n{GET}", None, None, CALLED),
        (f"  Action: {GET}", None, None, CALLED),
        (f"Action:\n```json\n{GET}\n```", None, None, CALLED),
        (f"Action:\n```\n{GET}```\n", None, None, CALLED),
        (f"Thought: Look it up.\nAction:\n{GET}", None, "Look it up.", CALLED),
        (f"I look it up.\n\nAction:\n{GET}", None, "I look it up.", CALLED),
        (f"<think>Hm.</think>\nThought: Look.\nAction: {GET}", None, "Hm.\nLook.", CALLED),
        (f"<think>Action: {HELLO}\n</think>Action: {GET}", None, f"Action: {HELLO}", CALLED),
        (f"Hm.</think>\nAction: {GET}", None, "Hm.", CALLED),
        (f"<think>Action: {GET}", None, f"Action: {GET}", []),
        (f"Action:\n{GET}\nAPI output:", None, None, CALLED),  # a stop string
        # what is not exactly one object
        (f"Action:\n{GET}\nThank you.", None, None, INVALID),
        (f"Action:\n{GET}\nAPI output: {{}}\nAction:\n{HELLO}", None, None, INVALID),
        (f"Action:\n{GET}\nAction:\n{HELLO}", None, None, INVALID),
        (f"Action:\n[{GET}]", None, None, INVALID),
        ("Action:\n7", None, None, INVALID),
        ("Action:", None, None, INVALID),
        ("Action: I will look.", None, None, INVALID),
        ("Action:\n{'name': 'get_order', 'arguments': {}}", None, None, INVALID),
        (f"Action:\n{GET[:-1]}", None, None, INVALID),
        ('Action: {"name": "get_order", "arguments": {"order_id": NaN}}', None, None, INVALID),
        ('Action: {"arguments": {}}', None, None, INVALID),
        ('Action: {"name": "get_order", "arguments": [1]}', None, None, INVALID),
        ('Action: {"name": "get_order", "arguments": "no object"}', None, None, INVALID),
        ('Action: {"name": "list_airports", "arguments": {}, "then": "stop"}', None, None, INVALID),
        ('Action: {"name": "list_airports", "name": "get_order"}', None, None, INVALID),  # one would be dropped
        ('Action: {"name": "get_order", "arguments": {"order_id": "#W1", "order_id": "#W2"}}', None, None, INVALID),
        ('Action: {"name": "list_airports", "arguments": ' + "[" * 5000 + "]" * 5000 + "}", None, None, INVALID),
        ('Action: {"name": "get_order", "arguments": {"order_id": ' + "9" * 5000 + "}}", None, None, INVALID),
        (f"Action:\n```json\n{GET}\n```\nDone.", None, None, INVALID),
        (f"Action:\n```json\n{GET}", None, None, INVALID),
        (f"Action: {GET}\nThought: done", None, None, INVALID),
        (f"Action: <think>Hm.</think>{GET}", None, None, INVALID),
        ("Hello.\nAction: and so on", None, "Hello.", INVALID),
        # respond
        (f"Action:\n{HELLO}", "Hello, you.", None, []),
        (TRICKY, " a\nAction: b </think> ", None, []),
        ('Action: {"name": "respond", "arguments": {"content": " "}}', None, None, INVALID),
        ('Action: {"name": "respond", "arguments": {"content": 7}}', None, None, INVALID),
        ('Action: {"name": "respond", "arguments": {}}', None, None, INVALID),
        ('Action: {"name": "respond"}', None, None, INVALID),
        ('Action: {"name": "respond", "arguments": {"content": "a", "content": "b"}}', None, None, INVALID),
        ('Action: {"name": "respond", "arguments": {"content": "a", "tone": "b"}}', None, None, INVALID),
        ('Action: {"name": "respond", "content": "a"}', None, None, INVALID),
        ('Action: {"name": "respond", "arguments": {"content": "a\nb"}}', None, None, INVALID),  # a raw line break
        ('Action: {"name": "respond", "arguments": "{\\"content\\": \\"a\\"}"}', "a", None, []),
        ('Action: {"name": "respond", "arguments": {"content": "a\\ud800"}}', "a\ufffd", None, []),
        # calls, checked by the schema
        ('Action: {"name": "list_airports"}', None, None, [("list_airports", {}, CallStatus.OK)]),
        ('Action: {"name": "get_order", "arguments": "{\\"order_id\\": \\"#W1\\"}"}', None, None, CALLED),
        ('Action: {"name": "fly", "arguments": {}}', None, None, [("fly", {}, CallStatus.UNKNOWN_TOOL)]),
        ('Action: {"name": "get_order"}', None, None, [("get_order", {}, CallStatus.BAD_ARGUMENTS)]),
        # without a marker
        (f"```json\n{GET}\n```", None, None, CALLED),
        (f"[{GET}]", f"[{GET}]", None, []),
        (f"**Action:** {GET}", f"**Action:** {GET}", None, []),
        (f"{HELLO}\n{HELLO}", f"{HELLO}\n{HELLO}", None, []),
        (GET, None, None, CALLED),
        (HELLO, "Hello, you.", None, []),
        ("Hello, you.", "Hello, you.", None, []),
        ("The Action: is next.", "The Action: is next.", None, []),
        (f"{GET} and more", f"{GET} and more", None, []),
        ("<think>Hm.</think>Hello.", "Hello.", "Hm.", []),
        ("", None, None, []),
        ("<think>Hm.</think>", None, "Hm.", []),
    ],
)  # fmt: skip
def test_what_a_turn_means(
    name: str, text: str, content: str | None, thought: str | None, called: list[tuple[str, dict[str, Any], CallStatus]]
) -> None:
    turn = fmt(name).parse(text, TOOLS)
    assert (turn.content, turn.reasoning, calls(turn)) == (content, thought, called)
    assert all("exactly one JSON object" in str(c.error) for c in turn.calls if c.status is CallStatus.INVALID_JSON)


def test_a_thought_alone_reaches_nobody_in_react() -> None:
    assert calls(fmt("react").parse("Thought: I should say hello.", TOOLS)) == INVALID
    assert fmt("act").parse("Thought: hello.", TOOLS).content == "Thought: hello."


def test_the_prompt_may_have_opened_the_reasoning() -> None:
    turn = fmt("act").parse(f"Hm.</think>Action: {GET}", TOOLS, reasoning_open=True)
    assert (turn.reasoning, calls(turn)) == ("Hm.", CALLED)
    turn = fmt("act").parse(f"Action: {GET}", TOOLS, reasoning_open=True)
    assert turn.reasoning_unclosed and not turn.calls and turn.content is None


def test_a_solo_agent_has_nobody_to_respond_to() -> None:
    assert calls(fmt("act", solo=True).parse(f"Action: {HELLO}", TOOLS)) == [
        ("respond", {"content": "Hello, you."}, CallStatus.UNKNOWN_TOOL)
    ]
    assert '"respond"' not in fmt("act", solo=True).instructions(TOOLS)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_PIECES = st.sampled_from(
    [
        "Action:",
        "\n",
        " ",
        GET,
        HELLO,
        "Thought:",
        "<think>",
        "</think>",
        "API output:",
        "```json",
        "```",
        "{",
        "}",
        '"',
        "Hi",
    ]
)


@pytest.mark.parametrize("name", ["act", "react"])
@given(tool=st.text(min_size=1).filter(str.strip), arguments=st.dictionaries(st.text(), _JSON))
def test_format_is_the_inverse_of_parse(name: str, tool: str, arguments: dict[str, Any]) -> None:
    turn = fmt(name).parse(fmt(name).format([(tool, arguments)]), [])
    if tool != "respond":
        assert [(call.name, call.arguments) for call in turn.calls] == [(tool, arguments)]


@pytest.mark.parametrize("name", ["act", "react"])
@given(said=st.text().filter(str.strip))
def test_what_is_said_is_heard_as_it_is(name: str, said: str) -> None:
    turn = fmt(name).parse(fmt(name).say(said), [])
    assert turn.content == said and not turn.calls


@pytest.mark.parametrize("name", ["act", "react"])
@given(text=st.text() | st.lists(_PIECES).map("".join), opened=st.booleans())
def test_nothing_is_both_executed_and_dropped(name: str, text: str, opened: bool) -> None:
    turn = fmt(name).parse(text, TOOLS, reasoning_open=opened)
    assert len(turn.calls) <= 1 and not (turn.calls and turn.content)
    if not turn.calls or turn.calls[0].status is CallStatus.INVALID_JSON:
        return
    # What was executed is the whole of the raw text, and every word of the rest is a thought.
    raw = turn.calls[0].raw
    left = text.rstrip().removesuffix("API output:").rstrip()
    assert left.endswith(raw)
    for mark in ("<think>", "</think>", "Thought:"):
        left, raw = left.replace(mark, " "), raw.replace(mark, " ")
    thought = (turn.reasoning or "").replace("Thought:", " ").replace("<think>", " ").replace("</think>", " ")
    assert "".join(left.removesuffix(raw).split()) == "".join(thought.split())


# ---- what the model is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["act", "react"])
def test_the_tools_and_an_example_that_can_be_read_stand_in_the_prompt(name: str) -> None:
    told = fmt(name).instructions(TOOLS)
    assert [json.loads(line) for line in told.split("\n") if line.startswith('{"type"')] == TOOLS
    examples = [block for block in told.split("\n\n") if "\nAction:\n" in f"\n{block}" and block.endswith("}")]
    read = [fmt(name).parse(example, TOOLS) for example in examples]
    assert [bool(turn.content) for turn in read] == [False, True]
    assert all(not any(call.status is CallStatus.INVALID_JSON for call in turn.calls) for turn in read)
    assert all((turn.reasoning is not None) == (name == "react") for turn in read)
    assert format_told_in(f"You are an agent.\n\n{told}") is fmt(name)
    assert format_told_in("You are an agent.") is None


def test_roles_alternate_and_the_greeting_is_told() -> None:
    def called(number: int) -> dict[str, Any]:
        return {"id": f"c{number}", "function": {"name": "get_order", "arguments": {"order_id": f"#W{number}"}}}

    chat = [
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "Hi! How can I help you today?"},
        {"role": "user", "content": "My order?"},
        {"role": "assistant", "content": "", "tool_calls": [called(1), called(2)]},
        {"role": "tool", "tool_call_id": "c1", "content": "sent"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no such order"},
        {"role": "assistant", "content": "It was sent."},
    ]
    told = in_format(fmt("act"), chat, TOOLS)
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user", "assistant"]
    assert told[0]["content"].startswith("Be kind.\n\n# Tools")
    assert told[0]["content"].endswith('You have already said: "Hi! How can I help you today?"')
    assert told[3]["content"] == "API output: sent\nAPI output: Error: no such order"
    assert fmt("act").parse(told[4]["content"], TOOLS).content == "It was sent."
    assert all(set(message) == {"role", "content"} for message in told)
    assert in_format(None, chat, TOOLS) == chat


# ---- chat templates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_every_template_of_the_list_can_be_used_for_actions_in_text(row: str) -> None:
    chosen = ROWS[row]
    chat = ChatDelta.calibrate(chosen.tokenizer(), template_kwargs=chosen.kwargs, text_only=True)
    messages = in_format(
        fmt("react"),
        [
            {"role": "system", "content": "Be kind."},
            {"role": "assistant", "content": "Hi! How can I help you today?"},
            {"role": "user", "content": "My order?"},
        ],
        TOOLS,
    )
    first = chat.template.decode(chat.first_prompt(messages))
    assert all(first.count(text) == 1 for text in ("Be kind.", "How can I help you", "My order?", "send_certificate"))
    acted = {"role": "assistant", "content": f"Thought: I look.\nAction:\n{GET}"}
    told = [{"role": "user", "content": "API output: Sent on Monday."}]
    delta = chat.between(messages, acted, told)
    whole = chat.template.render([*messages, acted, *told])
    assert whole.endswith(delta.text) and "API output: Sent on Monday." in delta.text
    assert "plain text" in chat.report.one_line()


# ---- a format of one's own -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reakt", "there are: native, act, react"),
        ("json.JSONDecoder", "solo=False"),
        ("json.dumps", "is not an action format: it lacks name, form, parse"),
        ("no_such_module.Mine", "finds no module"),
    ],
)
def test_a_format_that_cannot_be_used_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"agent_strategy") as refused:
        action_format(name)
    assert name in str(refused.value) and said in str(refused.value)
