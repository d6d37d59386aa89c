"""τ²'s own verdict on what was played through a door: the same lines, spoken again in τ²'s Orchestrator."""

from __future__ import annotations

from typing import Any

from tests import parity_play as play
from tests.parity_play import Call, Script, Turn


def assert_tau2_agrees(result: Any) -> None:
    """Messages, termination and reward of ``result`` are those of τ²'s Orchestrator over the same lines.

    ``result`` must have ended by itself (or by max_steps), without a call that never reached the environment.
    """
    from tau2_slime.world import domains

    assert not result.rejected_calls
    task = domains.find_task(result.domain, result.task_split, task_id=result.task_id)
    lines: dict[str, list[Turn]] = {"assistant": [], "user": []}
    initial = task.initial_state
    given = len((initial.message_history if initial is not None else None) or []) or 1  # or τ²'s greeting
    for message in result.messages[given:]:
        if message.role != "tool":
            calls = [Call(c.name, c.arguments, c.requestor, c.id) for c in message.tool_calls or []]
            lines[message.role].append(Turn(message.content, calls))
    theirs, run = play.play_tau2(result.domain, task, Script(lines["assistant"], lines["user"]))
    assert [play.plain(m) for m in result.messages] == theirs.messages, result.task_id
    verdict = play.score_tau2(result.domain, task, run)
    if isinstance(verdict, type):  # τ² itself raises for some of mock's tasks: an assertion that raises is not met
        assert (result.reward, str(result.blame)) == (0.0, "agent"), result.task_id
        return
    assert str(result.termination) == theirs.termination, result.task_id
    assert result.reward == verdict["reward"], result.task_id
