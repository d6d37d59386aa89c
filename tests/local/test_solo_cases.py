"""Which task a ticket belongs to, where several tasks carry the same one."""

from __future__ import annotations

from collections import Counter

import pytest

from tau2_slime.local.gold import DONE_TOOL, GoldScript
from tau2_slime.local.solo import SoloCase
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World, tasks


def test_a_ticket_of_its_own_needs_no_questions() -> None:
    task = next(t for t in tasks("mock", "base") if t.id == "update_task_1")
    case = SoloCase.find(task.ticket)
    assert case.questions == ()
    assert case.answer([]) == GoldScript.from_task(task, solo=True)


def test_tasks_that_share_a_ticket_are_told_apart_by_what_the_tools_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.local.solo.loaded", {("telecom", "base")})  # whatever other tests have played
    shared = Counter(task.ticket for task in tasks("telecom", "base"))
    ticket = min(shared, key=lambda t: shared[t])
    pool = [task for task in tasks("telecom", "base") if task.ticket == ticket]
    assert len(pool) > 1
    case = SoloCase.find(ticket)
    for task in pool:
        world = World("telecom", "base", task, solo=True)
        world.set_state([])
        heard = []
        for name, arguments in case.questions:
            result, _ = world.call(tau2_compat.load().ToolCall(id="q", name=name, arguments=arguments))
            assert not result.error
            heard.append(f"<tool_response>\n{result.content}\n</tool_response>")
        assert case.answer(heard) == GoldScript.from_task(task, solo=True)


def test_an_unknown_ticket_ends_at_once() -> None:
    case = SoloCase.find("Nobody has written this ticket.")
    assert case.questions == ()
    assert [turn.call for turn in case.answer([]).turns] == [(DONE_TOOL, {})]
