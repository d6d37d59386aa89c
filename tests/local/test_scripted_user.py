"""The scripted user against agents that do and do not follow the script."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.local.gold import CaseReference, GoldScript, find_reference
from tau2_slime.local.scripted_user import MAX_FRUITLESS, ScriptedUser
from tau2_slime.world import domains, tau2_compat


def says(text: str) -> Any:
    return tau2_compat.load().AssistantMessage(role="assistant", content=text)


def result(text: str) -> Any:
    return tau2_compat.load().ToolMessage(id="x", role="tool", content=text, requestor="user")


def is_stop(message: Any) -> bool:
    return bool(tau2_compat.load().UserSimulator.is_stop(message))


@pytest.fixture
def user() -> ScriptedUser:
    """A user with two actions of its own."""
    task = next(t for t in domains.tasks("telecom", "train") if len(_parts(t)) == 1 and len(_parts(t)[0]) == 2)
    user = ScriptedUser(task, "telecom", "train")
    user.start([])
    return user


def _parts(task: Any) -> tuple[Any, ...]:
    return GoldScript.from_task(task).user_parts


async def test_it_introduces_itself_with_its_case(user: ScriptedUser) -> None:
    reply = await user.reply(says("Hi! How can I help you today?"))
    assert find_reference(reply.content) == user.reference
    assert "mobile data" in reply.content.lower() or "phone" in reply.content.lower()


async def test_it_does_its_part_one_call_a_message_and_then_reports(user: ScriptedUser) -> None:
    await user.reply(says("Hi!"))
    task = domains.find_task("telecom", "train", task_id=user.reference.task_id)
    ask = next(turn for turn in GoldScript.from_task(task).turns if turn.kind == "ask")
    done = []
    reply = await user.reply(says(ask.text or ""))
    while reply.is_tool_call():
        assert len(reply.tool_calls) == 1
        assert reply.tool_calls[0].requestor == "user"
        done.append((reply.tool_calls[0].name, reply.tool_calls[0].arguments))
        reply = await user.reply(result("the device says ###STOP### and more"))
    assert tuple(done) == _parts(task)[0]
    assert not is_stop(reply)  # whatever the device says, only the user ends the call


async def test_it_does_a_part_only_once(user: ScriptedUser) -> None:
    task = domains.find_task("telecom", "train", task_id=user.reference.task_id)
    ask = next(turn for turn in GoldScript.from_task(task).turns if turn.kind == "ask")
    reply = await user.reply(says(ask.text or ""))
    while reply.is_tool_call():
        reply = await user.reply(result("ok"))
    again = await user.reply(says(ask.text or ""))
    assert not again.is_tool_call()


async def test_it_stops_when_the_agent_is_done_or_hands_over(user: ScriptedUser) -> None:
    task = domains.find_task("telecom", "train", task_id=user.reference.task_id)
    assert is_stop(await user.reply(says(GoldScript.from_task(task).turns[-1].text or "")))
    assert is_stop(await user.reply(says("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.")))


async def test_it_hangs_up_on_an_agent_that_gets_nowhere(user: ScriptedUser) -> None:
    replies = [await user.reply(says("Hm?")) for _ in range(MAX_FRUITLESS + 2)]
    assert [is_stop(reply) for reply in replies] == [False] * (MAX_FRUITLESS + 1) + [True]
    assert all(find_reference(reply.content) == user.reference for reply in replies[:-1])


async def test_after_a_history_it_gives_its_case_only_when_asked() -> None:
    t = tau2_compat.load()
    task = domains.find_task("mock", "base", task_id="update_task_with_message_history")
    user = ScriptedUser(task, "mock", "base")
    user.start([t.UserMessage(role="user", content="I need to create a task.")])
    reply = await user.reply(says("Could you please tell me your case reference?"))
    assert find_reference(reply.content) == CaseReference("mock", "base", task.id)


@given(st.text(min_size=1), st.text(max_size=20))
def test_any_task_id_survives_being_read_out(task_id: str, after: str) -> None:
    reference = CaseReference("some_domain", "full", task_id)
    assert find_reference(f"Hello, {reference.sentence()}\n{after}") == reference
    assert find_reference(f"<|im_start|>user\n{reference.sentence()}<|im_end|>\n{after}") == reference
