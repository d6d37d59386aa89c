"""What a simulator does wrong is found, and what only looks like it mostly is not: measured on labelled conversations."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulator_quality import load, scores
from tau2_slime.outcome import Flaw
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.quality import MAX_CHARACTERS, Turn, examine, turns_of

SCENARIO = "You are Ana Bo, user id ana_bo_1. You want a refund of $30 for order #W77. You refuse a voucher."


def test_the_set_is_large_and_its_labels_are_flaws() -> None:
    conversations = [conversation for conversation, _ in load()]
    assert len(conversations) >= 60
    assert {label for c in conversations for label in c["labels"]} == {str(flaw) for flaw in Flaw}
    assert sum(not c["labels"] for c in conversations) >= 40
    assert len({str(c["turns"]) for c in conversations}) == len(conversations)


@pytest.mark.parametrize("flaw", Flaw)
def test_each_check_is_worth_its_name(flaw: Flaw) -> None:
    score = scores()[flaw]
    assert score.precision >= 0.8, score.mistakes
    assert score.recall >= 0.75, score.mistakes


def flaws(*turns: Turn, tools: bool = False) -> list[tuple[Flaw, int]]:
    return [(finding.flaw, finding.position) for finding in examine(turns, SCENARIO, has_tools=tools)]


def test_what_the_task_makes_the_user_say_is_the_users_and_no_flaw_of_the_simulator() -> None:
    turns = [Turn("agent", "Hi!"), Turn("user", "My reference is AB12345. How can I help you?")]
    turns += [Turn("agent", "Which reference?"), Turn("user", "It is AB12345, or XY98765.")]
    found = [(one.flaw, one.position, one.words) for one in examine(turns, SCENARIO, has_tools=False, given=2)]
    assert found == [(Flaw.INVENTED, 3, "XY98765")]
    assert len(examine(turns, SCENARIO, has_tools=False)) == 3


def test_a_finding_says_where() -> None:
    turns = (Turn("agent", "Shall I proceed?"), Turn("user", "Yes. ###STOP###"))
    assert flaws(*turns) == [(Flaw.PREMATURE_STOP, 1)]
    assert flaws(Turn("agent", "Hi"), Turn("user", "", calls=1), tools=True) == []
    assert flaws(Turn("agent", "Hi"), Turn("user", "", calls=1)) == [(Flaw.TOOL_CALL, 1)]


def test_what_only_the_policys_tools_returned_is_not_known_to_the_user() -> None:
    t = tau2_compat.load()
    messages = [
        t.AssistantMessage(role="assistant", content="Hi"),
        t.AssistantMessage(
            role="assistant", tool_calls=[t.ToolCall(id="1", name="find", arguments={}, requestor="assistant")]
        ),
        t.ToolMessage(role="tool", id="1", content="order #W9912345", requestor="assistant"),
        t.ToolMessage(role="tool", id="2", content="signal id NET5521", requestor="user"),
        t.UserMessage(role="user", content="It is #W9912345."),
        t.UserMessage(role="user", content="It says NET5521."),
    ]
    turns = turns_of(messages)
    assert [turn.role for turn in turns] == ["agent", "tool", "user", "user"]
    assert flaws(*turns) == [(Flaw.INVENTED, 2)]


@given(st.lists(st.tuples(st.sampled_from(["agent", "user", "tool"]), st.text(), st.integers(0, 2))), st.text())
def test_nothing_that_can_be_said_breaks_it(turns: list[tuple[str, str, int]], scenario: str) -> None:
    said = [Turn(*turn) for turn in turns]
    found = examine(said, scenario, has_tools=False)
    assert all(said[finding.position].role == "user" for finding in found)
    assert found == examine(said, scenario, has_tools=False)


PIECES = [
    "a",
    " ",
    "1",
    '"',
    "“",
    "'a",
    "a-",
    "A1",
    "a.",
    "a@",
    "a_",
    "[",
    "(",
    "#",
    "$1",
    '{"name":',
    "my name is A ",
    "“'",
]


@pytest.mark.parametrize("piece", PIECES)
def test_the_time_grows_with_the_length_and_no_faster(piece: str) -> None:
    """The checks run on the event loop, where hundreds of other episodes wait."""
    text = piece * (100_000 // len(piece))
    turns = [turn for _ in range(5) for turn in (Turn("agent", text), Turn("user", text[:-1] + "!"))]
    started = time.thread_time()
    examine(turns, SCENARIO, has_tools=False)
    assert time.thread_time() - started < 5


def test_of_a_very_long_message_only_the_beginning_is_looked_at() -> None:
    t = tau2_compat.load()
    (turn,) = turns_of([t.UserMessage(role="user", content="a" * 10_000_000)])
    assert len(turn.text) == MAX_CHARACTERS
