"""What a person types becomes the call that they mean, or one line that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.local.person import Part, Person
from tau2_slime.local.terminal import Terminal
from tau2_slime.local.typed import completions, details, read_call, usage
from tau2_slime.tokens.calls.types import CallStatus
from tau2_slime.world import domains
from tau2_slime.world.environment import World, tool_schema

pytestmark = pytest.mark.fast
DOMAINS = ("mock", "airline", "retail", "telecom")


def tools_of(domain: str) -> list[dict[str, Any]]:
    world = World(domain, "base", domains.tasks(domain, "base")[0])
    return [tool_schema(tool) for tool in [*world.agent_tools, *(world.user_tools or [])]]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_gold_action_can_be_typed(domain: str) -> None:
    tools, typed = tools_of(domain), 0
    for task in domains.tasks(domain, "base"):
        for action in (task.evaluation_criteria.actions if task.evaluation_criteria else None) or []:
            words = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in action.arguments.items()]
            call = read_call(" ".join([action.name, *words]), tools)
            assert (call.status, call.name, call.arguments) == (CallStatus.OK, action.name, action.arguments), words
            again = read_call(f"{action.name} {json.dumps(action.arguments)}", tools)
            assert again.arguments == action.arguments
            typed += 1
    assert typed


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_tool_is_hidden_by_a_command(domain: str) -> None:
    person = Person(_Nowhere(), undo=True)
    person.part = Part(
        "you", tools_of(domain), dict.fromkeys(["policy", "scenario", "ticket"], ""), {"stop": "", "transfer": ""}
    )
    names = {tool["function"]["name"] for tool in person.part.tools}
    assert not names & person.commands.keys()
    for tool in person.part.tools:
        assert usage(tool).startswith(f"/{tool['function']['name']}") and details(tool)


class _Nowhere(Terminal):
    def __init__(self) -> None: ...


RETAIL = tools_of("retail")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("get_order_details", "'order_id' is missing"),
        ("get_order_details order=#W1", "'order' is unexpected"),
        ("return_delivered_order_items #W1 item_ids=[]", "'#W1' has no name"),
        ("return_delivered_order_items order_id=#W1 item_ids=[1, payment_method_id=x", "Expecting"),
        ('get_order_details {"order_id": }', "Expecting value"),
        ("list_all_product_types now", "it takes no argument"),
    ],
)
def test_a_slip_is_told_in_one_line(line: str, words: str) -> None:
    call = read_call(line, RETAIL)
    assert call.status is not CallStatus.OK
    assert words in (call.error or "") and "\n" not in (call.error or "") and call.error


@given(st.text(max_size=60))
def test_whatever_is_typed_is_a_call_or_an_error(rest: str) -> None:
    call = read_call(f"cancel_pending_order {rest}", RETAIL)
    assert (call.status is CallStatus.OK) == (call.error is None)
    completions(f"/cancel_pending_order {rest}", RETAIL, ["help"])


def test_completion_offers_what_may_stand_there() -> None:
    found, replaced = completions("/get_", RETAIL, ["help"])
    assert "get_order_details" in found and "help" not in found and replaced == 4
    assert completions("/cancel_pending_order order_id=#W1 ", RETAIL, []) == (["reason="], 0)
    assert completions("/tools get_ord", RETAIL, ["tools"]) == (["get_order_details"], 7)
    assert completions("hello /get", RETAIL, ["help"]) == ([], 0)
