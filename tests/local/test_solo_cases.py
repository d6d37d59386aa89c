"""Which task a ticket belongs to, where several tasks carry the same one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tau2_slime.local.gold import DONE_TOOL, GoldScript
from tau2_slime.local.solo import SoloCase
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import tasks
from tau2_slime.world.environment import World


def test_a_ticket_of_its_own_needs_no_questions() -> None:
    task = next(t for t in tasks("mock", "base") if t.id == "update_task_1")
    case = SoloCase.find(task.ticket)
    assert case.questions == ()
    assert case.answer([]) == GoldScript.from_task(task, solo=True)


def test_tasks_that_share_a_ticket_are_told_apart_by_what_the_tools_say() -> None:
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


def test_a_ticket_of_a_task_file_is_known_to_who_plays_the_file(tmp_path: Path) -> None:
    """And to nobody else, whatever this process has loaded."""
    (task,) = [t.model_dump(mode="json") for t in tasks("mock", "base") if t.id == "update_task_1"]
    task |= {"id": "mine", "ticket": "A ticket that only this file has."}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    split = f"file:{tmp_path}/tasks.json"
    (loaded,) = tasks("mock", split)
    assert SoloCase.find(loaded.ticket).candidates == ()
    known = SoloCase.find(loaded.ticket, frozenset({("mock", split)}))
    assert known.name == "mock/mine" and known.answer([]) == GoldScript.from_task(loaded, solo=True)
