"""Calls in the XML-like formats, of Qwen3-Coder and of GLM."""

from __future__ import annotations

import pytest

from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus
from tests.tokens.tools import TOOLS, summary

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
    assert turn.calls[0].arguments == {"user_id": "496", "amount": 50} and turn.content is None


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


def test_qwen_xml_with_several_parameters_and_text_after_it() -> None:
    text = (
        "<tool_call>\n<function=send_certificate>\n<parameter=user_id>\n496\n</parameter>\n"
        "<parameter=amount>\n50\n</parameter>\n</function>\n</tool_call>\nDone."
    )
    turn = get_parser("qwen_xml").parse(text, TOOLS)
    assert (turn.calls[0].arguments, turn.calls[0].error) == ({"user_id": "496", "amount": 50}, None)
    assert turn.content == "Done."


def glm_call(inside: str) -> str:
    return f"<tool_call>get_order\n{inside}</tool_call>"


def qwen_call(inside: str) -> str:
    return f"<tool_call>\n<function=get_order>\n{inside}</tool_call>"


LONG = "k" * 90
KEY = "<arg_key>a</arg_key>"


@pytest.mark.parametrize(
    ("parser", "text", "name", "error"),
    [
        ("glm", '<tool_call>\n"x"</tool_call>', "", "cannot be read: the tool's name must follow <tool_call>."),
        ("glm", glm_call(KEY + "x"), "get_order", f"cannot be read: <arg_value> must follow {KEY}."),
        (
            "glm",
            glm_call(f"<arg_key>{LONG}</arg_key>"),
            "get_order",
            f"cannot be read: <arg_value> must follow <arg_key>{LONG[:80]}</arg_key>.",
        ),
        (
            "glm",
            "<tool_call>get_order\n",
            "get_order",
            "is not closed: </tool_call> is missing, the call does not end.",
        ),
        (
            "glm",
            "<tool_call>get_order\n<tool_call>",
            "get_order",
            "is not closed: </tool_call> is missing, the call does not end.",
        ),
        (
            "glm",
            glm_call(LONG),
            "get_order",
            f"cannot be read: <arg_key> or </tool_call> must follow, not {LONG[:40]!r}.",
        ),
        (
            "glm",
            glm_call("<arg_key>a"),
            "get_order",
            "is not closed: </arg_key> is missing, an <arg_key> does not end.",
        ),
        (
            "glm",
            glm_call(f"{KEY}<arg_value>b"),
            "get_order",
            "is not closed: </arg_value> is missing, an <arg_value> does not end.",
        ),
        ("qwen_xml", "<tool_call>x</tool_call>", "", "cannot be read: <function=NAME> must follow <tool_call>."),
        (
            "qwen_xml",
            "<tool_call><function= ></function></tool_call>",
            "",
            "cannot be read: <function=NAME> must follow <tool_call>.",
        ),
        (
            "qwen_xml",
            qwen_call(f"<parameter={LONG}>x"),
            "get_order",
            f"is not closed: </parameter> is missing, the value of parameter {LONG[:80]!r} does not end.",
        ),
        ("qwen_xml", qwen_call(""), "get_order", "is not closed: </function> is missing, the function does not end."),
        (
            "qwen_xml",
            "<tool_call><function=get_order>\n",
            "get_order",
            "is not closed: </function> is missing, the function does not end.",
        ),
        (
            "qwen_xml",
            "<tool_call><function=get_order><tool_call>",
            "get_order",
            "is not closed: </function> is missing, the function does not end.",
        ),
        (
            "qwen_xml",
            qwen_call(LONG),
            "get_order",
            f"cannot be read: <parameter=NAME> or </function> must follow, not {LONG[:40]!r}.",
        ),
        ("qwen_xml", qwen_call("</function>\nx"), "get_order", "cannot be read: it must follow </function>."),
        (
            "qwen_xml",
            "<tool_call>\n<function=get_order>\n</function>",
            "get_order",
            "is not closed: </tool_call> is missing, it must follow </function>.",
        ),
    ],
)
def test_what_the_model_reads_about_a_broken_xml_like_call(parser: str, text: str, name: str, error: str) -> None:
    call = get_parser(parser).parse(text, TOOLS).calls[0]
    assert (call.name, call.arguments, call.error) == (name, {}, f"The tool call {error}")


GLM_BODY = "<arg_key>order_id</arg_key>\n<arg_value>#W1</arg_value>\n"
QWEN_BODY = "<function=get_order>\n<parameter=order_id>\n#W1\n</parameter>\n"


@pytest.mark.parametrize(
    ("parser", "text", "name", "raw", "content"),
    [
        ("glm", f"get_order\n{GLM_BODY}</tool_call>", "get_order", f"get_order\n{GLM_BODY}</tool_call>", None),
        ("glm", f"Hi.\nget_order\n{GLM_BODY}", "get_order", f"get_order\n{GLM_BODY}", "Hi."),
        ("glm", f"Hi there\n\n{GLM_BODY}</tool_call>", "", f"{GLM_BODY}</tool_call>", "Hi there"),
        ("glm", f"{GLM_BODY}{GLM_BODY}</tool_call>", "", f"{GLM_BODY}{GLM_BODY}</tool_call>", None),
        ("glm", f"A\nB\nget_order\n{GLM_BODY}</tool_call>", "get_order", f"get_order\n{GLM_BODY}</tool_call>", "A\nB"),
        (
            "glm",
            f"A</tool_call>\nget_order{GLM_BODY}</tool_call>B",
            "get_order",
            f"get_order{GLM_BODY}</tool_call>",
            "A</tool_call>\nB",
        ),
        (
            "qwen_xml",
            f"{QWEN_BODY}</function>\n</tool_call>",
            "get_order",
            f"{QWEN_BODY}</function>\n</tool_call>",
            None,
        ),
        ("qwen_xml", f"A{QWEN_BODY}</function>\nB", "get_order", f"{QWEN_BODY}</function>", "A\nB"),
        ("qwen_xml", f"A{QWEN_BODY}B", "get_order", f"{QWEN_BODY}B", "A"),
        (
            "qwen_xml",
            "</function></tool_call>\n<function= get_order >\n</function></tool_call>B",
            "get_order",
            "<function= get_order >\n</function></tool_call>",
            "</function></tool_call>\nB",
        ),
        ("qwen_xml", f"</function>\n{QWEN_BODY}", "get_order", QWEN_BODY, "</function>"),
    ],
)
def test_xml_like_calls_without_their_opening_tag(
    parser: str, text: str, name: str, raw: str, content: str | None
) -> None:
    turn = get_parser(parser).parse(text, TOOLS)
    assert [(call.name, call.status, call.raw) for call in turn.calls] == [(name, CallStatus.UNCLOSED, raw)]
    assert turn.content == content


@pytest.mark.parametrize(
    ("parser", "body"),
    [
        ("glm", f"get_order\n{GLM_BODY}</tool_call>"),
        ("qwen_xml", f"{QWEN_BODY}</function>\n</tool_call>"),
        ("qwen_xml", f"{QWEN_BODY}</function>"),
    ],
)
def test_several_xml_like_calls_without_their_opening_tags(parser: str, body: str) -> None:
    turn = get_parser(parser).parse(f"A\n{body}\nB\n{body}\nC", TOOLS)
    assert [(call.name, call.raw) for call in turn.calls] == [("get_order", body)] * 2
    assert turn.content == "A\nB\nC"


@pytest.mark.parametrize(("parser", "body"), [("glm", GLM_BODY), ("qwen_xml", QWEN_BODY)])
def test_an_argument_with_a_closing_tag_in_a_call_that_was_cut(parser: str, body: str) -> None:
    opened = "<tool_call>get_order\n" if parser == "glm" else "<tool_call>\n"
    call = get_parser(parser).parse(opened + body.replace("#W1", "a</tool_call>b"), TOOLS).calls[0]
    assert (call.status, call.arguments) == (CallStatus.UNCLOSED, {"order_id": "a</tool_call>b"})


def test_what_the_xml_like_formats_write() -> None:
    calls = [("f", {"text": "Zürich\n", "many": ["ü", None], "yes": True}), ("g", {})]
    assert get_parser("glm").format(calls) == (
        "<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>Zürich\n</arg_value>\n"
        '<arg_key>many</arg_key>\n<arg_value>["ü", null]</arg_value>\n'
        "<arg_key>yes</arg_key>\n<arg_value>true</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>"
    )
    assert get_parser("qwen_xml").format(calls) == (
        "<tool_call>\n<function=f>\n<parameter=text>\nZürich\n\n</parameter>\n"
        '<parameter=many>\n["ü", null]\n</parameter>\n<parameter=yes>\nTrue\n</parameter>\n'
        "</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>"
    )


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("glm", "<tool_call>get_order\n<arg_key>order_id</arg_key>\n<arg_value>a </tool_call> b</arg_value>\n"),
        (
            "qwen_xml",
            "<tool_call>\n<function=get_order>\n<parameter=order_id>\na </tool_call> b\n</parameter>\n</function>\n",
        ),
        ("qwen_xml", "<tool_call>\n<function=get_order>\n<parameter=order_id>\na </tool_call> b\n</parameter>\n"),
    ],
)
def test_a_call_that_is_cut_does_not_end_at_a_tag_within_its_argument(parser: str, text: str) -> None:
    """What follows that tag is no text for the user."""
    turn = get_parser(parser).parse(f"Wait.\n{text}", TOOLS)
    assert turn.content == "Wait."
    (call,) = turn.calls
    assert (call.name, call.status, call.raw) == ("get_order", CallStatus.UNCLOSED, text)
    assert call.arguments == {"order_id": "a </tool_call> b"}
