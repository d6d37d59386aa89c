"""A share of rewards is computed again by τ²'s own evaluator in another process; a difference is told, and τ²'s counts."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest

from tau2_slime.outcome import Termination
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.fast import audit
from tests.world.twins import Player, gold_calls


@pytest.fixture(scope="module", autouse=True)
def child() -> Any:
    yield audit.auditor
    audit.auditor.close()


def played(domain: str) -> tuple[Player, Any]:
    task = next(t for t in domains.tasks(domain, "base") if gold_calls(t) and not scoring.needs_judge(t))
    player = Player(domain, task)
    for call in gold_calls(task):
        player.call(call)
    player.say(" ".join(["Done.", *(task.evaluation_criteria.communicate_info or [])]))
    now = tau2_compat.load().get_now()
    info = scoring.score(player.world, player.messages, {}, Termination.USER_STOP, started=now, duration=0.0)
    return player, info


def audited(player: Player, info: Any) -> Any:
    return asyncio.run(scoring.audit(info, player.world, player.messages, player.rejected, Termination.USER_STOP))


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Of this package: what others log at that moment (asyncio of what it collects, for one) is not of the audit."""
    return [r for r in caplog.records if r.name.startswith("tau2_slime")]


@pytest.mark.parametrize("domain", ["mock", "retail", "telecom"])
def test_a_right_reward_stays_and_nothing_is_said(domain: str, caplog: pytest.LogCaptureFixture) -> None:
    player, info = played(domain)
    assert audited(player, info) is info
    assert info.reward == 1.0 and not told(caplog)


def test_a_wrong_reward_is_told_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    player, info = played("mock")
    wrong = info.model_copy(update={"reward": 0.25})
    official = audited(player, wrong)
    assert official.reward == 1.0
    (record,) = told(caplog)
    assert record.levelno == logging.ERROR
    assert player.task.id in record.getMessage() and "0.25" in record.getMessage()


def test_a_process_that_dies_costs_the_audit_and_not_the_reward(caplog: pytest.LogCaptureFixture) -> None:
    player, info = played("mock")
    audited(player, info)
    child = audit.auditor._child
    assert child is not None and child.pid != os.getpid()
    child.kill()
    child.wait()
    assert audited(player, info) is info, "another process was started"
    assert audit.auditor._child is not child


def test_what_tau2_raises_is_told_and_the_reward_stays(caplog: pytest.LogCaptureFixture) -> None:
    player, info = played("mock")
    player.messages.insert(0, player.messages[-2])  # a result without a call
    assert audited(player, info) is info
    assert "ValueError" in caplog.text


def test_rewards_of_a_judge_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    player, info = played("mock")
    monkeypatch.setattr(scoring, "needs_judge", lambda task: True)
    monkeypatch.setattr(audit.auditor, "official", None)
    assert audited(player, info) is info
