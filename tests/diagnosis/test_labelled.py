"""Failures whose cause is known, because they were made: who, what and where the rules say."""

from __future__ import annotations

import json
import time
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from tau2_slime.diagnosis import order
from tau2_slime.diagnosis.decide import case_of, diagnose
from tau2_slime.diagnosis.findings import LONGEST, Diagnosis, What, agent_finding
from tau2_slime.diagnosis.story import read_story
from tau2_slime.world import domains

from .corruptions import CORRUPTIONS, labelled, successes
from .plays import Made, actions, begin, finish, own_writes, play_all


@cache
def diagnosed(kind: str) -> list[tuple[Made, Diagnosis]]:
    return [(made, diagnose(made[0], "run")) for made in labelled(2, kinds=iter([kind]))]


@pytest.mark.parametrize("kind", [*CORRUPTIONS])
def test_the_cause_of_each_way_to_fail_is_found(kind: str) -> None:
    found = diagnosed(kind)
    if kind in ("missing_action", "wrong_refusal"):  # the last wish of an airline task is one that its user never says
        found = [pair for pair in found if pair[0][0].domain != "airline"]
    assert found, "no task can fail like this"
    for (trajectory, label), diagnosis in found:
        where = f"{kind}: {trajectory.domain} {trajectory.task_id}"
        said = (where, diagnosis.finding.who.value, str(diagnosis.finding.what))
        assert said == (where, label.who, label.what)
        if label.turn is not None:
            assert (where, diagnosis.finding.turn) == (where, label.turn)


def test_quotations_stand_in_the_message_that_they_name() -> None:
    for kind in CORRUPTIONS:
        for (trajectory, _), diagnosis in diagnosed(kind):
            for line in [diagnosis.to_dict(), *diagnosis.to_dict()["also"]]:  # type: ignore[misc]
                for evidence in line.get("evidence", []):
                    if "text" in evidence:
                        assert evidence["text"] in str(trajectory.messages[evidence["turn"]]["content"])
                    assert all(len(str(value)) <= LONGEST for value in evidence.values())


def test_a_success_is_not_called_a_failure() -> None:
    found = [diagnose(trajectory) for trajectory, _ in successes(6)]
    assert len(found) >= 15
    assert {(one.finding.who.value, str(one.finding.what)) for one in found} == {("none", "none")}


def test_the_same_episode_gives_the_same_line() -> None:
    trajectory, _ = labelled(1, kinds=iter(["wrong_argument.payment"]))[0]
    assert diagnose(trajectory, "run").to_dict() == diagnose(trajectory, "run").to_dict()


def test_an_episode_takes_less_than_a_tenth_of_a_second() -> None:
    episodes = [trajectory for (trajectory, _), _ in diagnosed("missing_action")]
    started = time.process_time()
    for trajectory in episodes:
        diagnose(trajectory)
    assert (time.process_time() - started) / len(episodes) < 0.1


def test_the_clause_is_a_sentence_of_this_policy() -> None:
    from tau2_slime.diagnosis.replay import fresh_world

    (trajectory, _), diagnosis = diagnosed("gold_label")[0]
    task = domains.tasks(trajectory.domain, "base")[0]
    clause = diagnosis.finding.clause
    assert clause is not None
    assert clause.split(" > ")[-1] in fresh_world(trajectory.domain, "base", task).policy


def test_an_empty_message_or_a_strange_task_never_raises() -> None:
    e = begin("retail", domains.tasks("retail", "base")[0], 0)
    finish(e)
    trajectory = e.done()
    trajectory.reward, trajectory.task, trajectory.task_id = 0.0, None, "no such task"
    found = diagnose(trajectory)
    assert (found.finding.what, found.finding.sure) == ("other", 0.2)
    assert "no such task" in str(found.finding.evidence[0].here)
    trajectory.messages = []
    assert diagnose(trajectory).finding.what == "other"


def test_a_yes_to_a_wrong_listing_leaves_the_fault_with_the_agent() -> None:
    for (_, _), diagnosis in diagnosed("wrong_argument.value"):
        assert diagnosis.finding.who.value == "agent"


def test_damaged_messages_cost_nothing_but_themselves() -> None:
    (trajectory, _), whole = diagnosed("wrong_argument.payment")[0]
    damaged = deepcopy(trajectory)
    damaged.messages += [None, {"role": "assistant", "tool_calls": ["no call"]}, {"role": 7, "tool_calls": 5}]  # type: ignore[list-item]
    assert diagnose(damaged).finding == whole.finding
    damaged.reward = float("nan")
    assert diagnose(damaged).to_dict()["reward"] is None


def test_arguments_may_be_json_text() -> None:
    (trajectory, _), whole = diagnosed("wrong_argument.payment")[0]
    spelt = deepcopy(trajectory)
    for message in spelt.messages:
        for call in message.get("tool_calls") or []:
            call["arguments"] = json.dumps(call["arguments"])
    assert diagnose(spelt).finding == whole.finding


def test_where_the_world_is_golds_no_order_is_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    (trajectory, label), _ = diagnosed("not_communicated")[0]
    swapped = agent_finding(What.WRONG_ORDER, 3, sure=0.8)
    monkeypatch.setattr(order, "wrong_order", lambda case: swapped)
    found = diagnose(trajectory)
    assert (str(found.finding.what), found.finding.turn) == ("not_communicated", label.turn)
    assert swapped in found.also


def test_a_call_that_could_not_be_read_is_the_cause_though_an_earlier_action_is_missing() -> None:
    """The first of gold's writes is left out, the second one is garbled and never repaired."""
    tools = {
        t.id: [actions("retail", t)[at][1] for at in own_writes("retail", t)] for t in domains.tasks("retail", "base")
    }
    task = next(t for t in domains.tasks("retail", "base") if len(tools[t.id]) == 2 == len({*tools[t.id]}))
    first, second = own_writes("retail", task)
    garbled: list[int] = []
    e = begin("retail", task, 0)

    def change(position: int, action: tuple[str, str, dict[str, Any], bool]) -> bool:
        if position == second:
            garbled.append(e.call(action[1], action[2], reaches=False))
        return position in (first, second)

    play_all(e, change)
    finish(e)
    found = diagnose(e.done())
    assert (str(found.finding.what), found.finding.turn) == ("malformed_call", garbled[0])


def test_a_policy_in_other_words_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    (trajectory, _), _ = diagnosed("gold_label")[0]
    case = case_of(trajectory, read_story(trajectory))
    case.domain = "a release of its own"
    assert [case.clause("no such words"), case.clause("nor these"), case.clause("")] == [None] * 3
    assert sum("says a rule in other words" in record.getMessage() for record in caplog.records) == 1
