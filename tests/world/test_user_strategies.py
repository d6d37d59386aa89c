"""Strategies of the user simulator: what is sent, what is remembered, what is asked and counted. A real endpoint answers."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.config.simulators import Price
from tau2_slime.errors import UserSimulatorError
from tau2_slime.outcome import Flaw
from tau2_slime.world import domains, tau2_compat, users
from tau2_slime.world.environment import World
from tau2_slime.world.users import LitellmUser, UserSpec
from tau2_slime.world.users.strategies import read_verdict
from tests.world import test_users
from tests.world.test_users import MODEL, Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
server = test_users.server

SCENARIO = "You are Mia Li and want to return order #W123. You do not know the e-mail address."
PRICE = Price(input=1.0, output=1.0)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users.simulator, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(users.simulator, "BACKOFF_MAX", 0.002)


def agent(text: str) -> Any:
    return tau2_compat.load().AssistantMessage(role="assistant", content=text)


async def play(
    server: Server, strategy: str, *answers: dict[str, Any] | str, asked: str = "How can I help?", **more: Any
) -> Any:
    """The user after one turn, and its message. The server gives the ``answers`` one after the other."""
    server.requests.clear()
    server.will(*({"content": a} if isinstance(a, str) else a for a in answers))
    spec = UserSpec(MODEL, server.url, timeout=5, retries=1, price=PRICE)
    user = LitellmUser(spec, tools=more.pop("tools", None), instructions=SCENARIO, strategy=strategy, **more)
    user.start([])
    reply = await user.reply(agent(asked))
    return user, reply


def history(user: Any) -> list[str | None]:
    return [message.content for message in user.seen]


def counts(user: Any) -> dict[str, float]:
    return {kind: booked["calls"] for kind, booked in user.stats.kinds.items()}


FLIP = "How can I help you today?"

CASES: list[tuple[str, list[str], str, dict[str, int], int]] = [
    # strategy, what the model answers, what is sent, calls by kind, unverified
    ("rules", ["I want to return #W123."], "I want to return #W123.", {"draft": 1}, 0),
    ("rules", [FLIP, "I want to return #W123."], "I want to return #W123.", {"draft": 2}, 0),
    ("rules", [FLIP, FLIP, FLIP], FLIP, {"draft": 3}, 1),
    ("react", ["Thought: ###STOP### would be early.\nUser Response: Hello."], "Hello.", {"draft": 1}, 0),
    ("react", ["Thought: a\nUser Response: b\nThought: c\nUser Response: d"], "d", {"draft": 1}, 0),
    ("react", ["Hello."], "Hello.", {"draft": 1}, 0),
    ("react", ["Thought: I only think.", "User Response: Hello."], "Hello.", {"draft": 2}, 0),
    ("verify", ["Hello.", "true"], "Hello.", {"draft": 1, "verdict": 1}, 0),
    ("verify", ["a", "False. Too short.", "b", '{"ok": false}', "c", "TRUE!"], "c", {"draft": 3, "verdict": 3}, 0),
    ("verify", ["a", "false", "b", "false", "c", "false"], "c", {"draft": 3, "verdict": 3}, 1),
    ("verify", ["a", "That is not true."], "a", {"draft": 1, "verdict": 1}, 1),
    ("reflection", ["a", "true"], "a", {"draft": 1, "verdict": 1}, 0),
    ("reflection", ["a", "false", "Response: x\nResponse: b", "true"], "b", {"draft": 1, "verdict": 2, "reflection": 1}, 0),
    ("reflection", ["a", "false", "Response: b", "false"], "a", {"draft": 1, "verdict": 2, "reflection": 1}, 1),
    ("reflection", ["a", "false", "I cannot say."], "a", {"draft": 1, "verdict": 1, "reflection": 1}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "answers", "sent", "kinds", "unverified"), CASES)
async def test_one_message_is_sent_and_remembered(
    server: Server,
    strategy: str,
    answers: list[str],
    sent: str,
    kinds: dict[str, int],
    unverified: int,
) -> None:
    user, reply = await play(server, strategy, *answers)
    assert reply.content == sent and history(user) == ["How can I help?", sent]
    assert (counts(user), user.stats.unverified) == (kinds, unverified)
    calls = sum(kinds.values())
    assert len(server.requests) == user.stats.calls == calls
    # 11 tokens in, 3 out, a dollar for a million of either: all calls of the turn are paid for, and counted by kind
    assert user.stats.cost == pytest.approx(calls * 14e-6) == reply.cost
    assert sum(booked["cost"] for booked in user.stats.kinds.values()) == pytest.approx(user.stats.cost)
    assert user.stats.played == {MODEL: 1}


async def test_the_default_asks_once_and_as_before(server: Server) -> None:
    user, reply = await play(server, "llm", FLIP)
    assert reply.content == FLIP and user.stats.kinds == {} and user.stats.unverified == 0
    (request,) = server.requests
    assert [m["role"] for m in request["messages"]] == ["system", "user"]


async def test_the_next_turn_has_heard_nothing_of_drafts_thoughts_and_verdicts(server: Server) -> None:
    user, _ = await play(server, "verify", "a", "false", "b", "true")
    server.will({"content": "c"}, {"content": "true"})
    await user.reply(agent("Which order?"))
    told = server.requests[4]["messages"]
    assert [m["content"] for m in told[1:]] == ["How can I help?", "b", "Which order?"]
    user, _ = await play(server, "react", "Thought: secret\nUser Response: b")
    server.will({"content": "User Response: c"})
    await user.reply(agent("Which order?"))
    assert "secret" not in str(server.requests[-1]["messages"])


async def test_the_verifier_sees_who_said_what_and_the_writer_hears_why(server: Server) -> None:
    await play(server, "verify", FLIP, "false: it speaks as the agent", "I want to return #W123.", "true")
    verdict, again = server.requests[1]["messages"], server.requests[2]["messages"]
    seen = verdict[-1]["content"]
    assert SCENARIO in seen and "Agent: How can I help?" in seen and f"# Draft\nCustomer: {FLIP}" in seen
    assert "role_flip" in seen, "what the rules found is told to the verifier"
    assert again[-2] == {"role": "assistant", "content": FLIP} or again[-2]["content"] == FLIP
    assert "it speaks as the agent" in again[-1]["content"] and "role_flip" in again[-1]["content"]


async def test_a_draft_that_calls_a_tool_goes_through(server: Server) -> None:
    task = domains.tasks("telecom", "base")[0]
    tools = World("telecom", "base", task).user_tools
    for strategy in ("rules", "react", "verify", "reflection"):
        called = {"calls": [("toggle_airplane_mode", "{}")], "content": "Thought: now."}
        user, reply = await play(server, strategy, called, tools=tools)
        assert [call.name for call in reply.tool_calls] == ["toggle_airplane_mode"]
        assert len(server.requests) == 1 and user.stats.unverified == 0
    assert "Thought" not in str((await play(server, "react", called, tools=tools))[1].content)


async def test_without_a_verifier_the_draft_is_sent(server: Server) -> None:
    spec = UserSpec("openai/judge", "http://127.0.0.1:9/v1", timeout=5, retries=1)
    for strategy in ("verify", "reflection"):
        user, reply = await play(server, strategy, "a", verifier=spec)
        assert reply.content == "a" and history(user)[-1] == "a"
        assert user.stats.unverified == 1 and counts(user) == {"draft": 1}


async def test_another_model_may_judge(server: Server) -> None:
    await play(server, "verify", "a", "true", verifier=UserSpec("openai/judge", server.url))
    assert [request["model"] for request in server.requests] == ["test", "judge"]


async def test_a_budget_that_ends_before_the_verdict_loses_nothing(server: Server) -> None:
    server.requests.clear()
    server.will({"content": "a"}, {"content": "true"})
    user = LitellmUser(
        UserSpec(MODEL, server.url, price=PRICE, budget=users.spending.dollars + 1e-6),
        tools=None,
        instructions=SCENARIO,
        strategy="verify",
    )
    user.start([])
    reply = await user.reply(agent("How can I help?"))
    assert (reply.content, user.stats.unverified, len(server.requests)) == ("a", 1, 1)


async def test_a_simulator_that_cannot_be_had_leaves_no_message(server: Server) -> None:
    user = LitellmUser(UserSpec(MODEL, server.url, retries=1), tools=None, instructions=SCENARIO, strategy="react")
    server.will({"content": "Thought: I only think."})
    user.start([])
    with pytest.raises(UserSimulatorError, match="a thought without"):
        await user.reply(agent("How can I help?"))
    assert history(user) == ["How can I help?"]


async def test_the_gate_says_which_flaws_are_asked_about_again(server: Server) -> None:
    user, reply = await play(server, "rules", FLIP, gate=(Flaw.LEAK,))
    assert reply.content == FLIP and counts(user) == {"draft": 1}


@pytest.mark.parametrize(
    ("said", "good"),
    [
        ("true", True),
        ("True.", True),
        ("**false** because", False),
        ('{"ok": true}', True),
        ('{"ok": "yes"}', None),
        ("That is not true.", None),
        ("truely", None),
        ("", None),
        ("[true]", True),
    ],
)
async def test_a_verdict_is_the_first_word(said: str, good: bool | None) -> None:
    assert read_verdict(said)[0] is good
