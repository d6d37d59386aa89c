"""What the serving stack reads, we read: a shared corpus through the real sglang's parsers and ours.

A policy is trained on what it can do once it is served. Where the two differ, the corpus says why.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus
from tests.engine.cluster import HERE
from tests.tokens.tools import TOOLS

SERVED_BY = {"hermes": ("qwen25", "qwen3"), "qwen_xml": ("qwen3_coder", "qwen3"), "glm": ("glm45", "glm45")}
"""Our parser -> sglang's parsers of calls and of thoughts for the same models."""

DROPPED = "sglang drops what it cannot read, and the model never learns why; here it is answered by an error"
INNER = "sglang ends the call, and its argument, at the first </tool_call>; here the argument is what the model wrote"
READ = "sglang's pattern wants its line breaks; here the call is read all the same"


class Case(NamedTuple):
    parser: str
    text: str
    opened: bool = False
    """The chat template has opened the thought."""
    differs: str = ""
    """Why the two differ; empty: they must not."""


def hermes(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def xml(name: str, **arguments: str) -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in arguments.items())
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def glm(name: str, **arguments: str) -> str:
    inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in arguments.items())
    return f"<tool_call>{name}\n{inner}</tool_call>"


ORDER = '{"name": "get_order", "arguments": {"order_id": "#W1"}}'
CORPUS = [
    Case("hermes", hermes(ORDER)),
    Case("hermes", f"One moment.\n{hermes(ORDER)}\n{hermes(ORDER)}"),
    Case("hermes", hermes('{"name": "get_order", "parameters": {"order_id": "#W1"}}')),
    Case("hermes", hermes('{"name": "get_order", "arguments": {}, "parameters": {"order_id": "#W1"}}')),
    Case("hermes", hermes('{"name": "list_airports"}')),
    Case("hermes", hermes('{"name": "get_order", "order_id": "#W1"}')),
    Case("hermes", hermes(f"[{ORDER}, {ORDER}]")),
    Case("hermes", hermes('{"name": "get_order", "arguments": {"order_id": 7}}')),
    Case("hermes", hermes('{"name": "get_order", "arguments": {"order_id": 1.50}}')),
    Case("hermes", hermes('{"name": "get_order", "arguments": {"order_id": null, "x": [1, true]}}')),
    Case("hermes", hermes('{"name": "no_such_tool", "arguments": {"a": 1}}')),
    Case("hermes", f"<think>\nI need it.\n</think>\n\n{hermes(ORDER)}"),
    Case("hermes", f"<think>\nMaybe {hermes(ORDER)}?\n</think>\n\nHello."),
    Case("hermes", f"<think>\nI need it.\n{hermes(ORDER)}"),
    Case("hermes", f"I need it.\n{hermes(ORDER)}", opened=True),
    Case("hermes", "<think>\nI could write <tool_call>, but"),
    Case("hermes", "Hello."),
    Case("hermes", f"<tool_call>{ORDER}</tool_call>", differs=READ),
    Case(
        "hermes", hermes('{"name": "get_order", "arguments": "{\\"order_id\\": \\"#W1\\"}"}'), differs="read once more"
    ),
    Case("hermes", hermes(ORDER[:-1]), differs=DROPPED),
    Case("hermes", f"<tool_call>\n{ORDER}", differs=DROPPED),
    Case("qwen_xml", xml("get_order", order_id="#W1")),
    Case("qwen_xml", xml("get_order", order_id="7")),
    Case("qwen_xml", xml("send_certificate", user_id="sara", amount="50")),
    Case("qwen_xml", xml("send_certificate", user_id="sara", amount="1.5")),
    Case("qwen_xml", xml("list_airports")),
    Case("qwen_xml", xml("get_order", order_id="#W1") + "\n" + xml("list_airports")),
    Case("qwen_xml", f"<think>\nI need it.\n{xml('get_order', order_id='#W1')}"),
    Case("qwen_xml", xml("get_order", order_id="null"), differs="null is a text where the schema wants a text"),
    Case("qwen_xml", xml("get_order", order_id="a </tool_call> b"), differs=INNER),
    Case("qwen_xml", xml("get_order", order_id="a </tool_call> b").removesuffix("</tool_call>"), differs=INNER),
    Case("glm", glm("get_order", order_id="#W1")),
    Case("glm", glm("get_order", order_id="a </tool_call> b"), differs=INNER),
    Case("glm", glm("get_order", order_id="a </tool_call> b").removesuffix("</tool_call>"), differs=INNER),
    Case("glm", glm("send_certificate", user_id="sara", amount="50")),
    Case("glm", f"<think>I need it.{glm('get_order', order_id='#W1')}"),
    Case("glm", glm("get_order", order_id="7")),
]


@pytest.fixture(scope="session")
def served(python: Path) -> list[list[tuple[str, Any]]]:
    """What sglang makes of each case."""
    cases = [
        {"parser": SERVED_BY[c.parser][0], "reasoning": SERVED_BY[c.parser][1], "text": c.text, "open": c.opened}
        for c in CORPUS
    ]
    done = subprocess.run(
        [str(python), str(HERE / "parse_with_sglang.py")],
        input=json.dumps({"tools": TOOLS, "cases": cases}),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    return [[(name, json.loads(arguments)) for name, arguments in calls] for calls in answer]


@pytest.mark.parametrize("number", range(len(CORPUS)))
def test_a_call_is_what_sglang_hands_on(served: list[list[tuple[str, Any]]], number: int) -> None:
    case = CORPUS[number]
    turn = get_parser(case.parser).parse(case.text, TOOLS, reasoning_open=case.opened)
    readable = (CallStatus.OK, CallStatus.BAD_ARGUMENTS, CallStatus.UNKNOWN_TOOL)
    ours = [(call.name, call.arguments) for call in turn.calls if call.status in readable]
    if case.differs:
        assert ours != served[number] or len(turn.calls) != len(ours), "they agree by now: no reason is needed"
    else:
        assert ours == served[number]
