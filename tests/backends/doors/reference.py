"""The same cases in τ²'s own Orchestrator, scored by τ²'s own evaluator.

τ² is given what the agent of a door gives it. That is what the script says, but for three things, each of which
docs/parity.md explains: the blanks around the text of a sampled turn, values that the tool's schema can only mean in another
type, and calls that cannot be read, on which τ² itself would raise: they are answered without the environment.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from tau2_slime.world import domains, tau2_compat
from tests import parity_play as play
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, messages_of, record_of

UNREADABLE = "a call that cannot be read"


@dataclass
class Reference:
    record: Record
    unreadable: set[str]
    """Calls by place (`records.renamed`) that never reached the environment."""


def reference(case: Case, *, sampled: bool) -> Reference:
    """``sampled``: as the doors hear it that read turns from tokens."""
    task = domains.find_task(case.domain, case.split, task_id=case.task_id)
    environment = play.tau2_environment(case.domain, task, solo=case.solo)
    unreadable: set[str] = set()
    script = copy.deepcopy(case.script)
    for number, turn in enumerate(script.agent):
        if sampled:
            turn.content = (turn.content or "").strip() or None
        for position, call in enumerate(turn.calls):
            call.id = f"{number}/{position}"
            if isinstance(call.arguments, str) or not call.name:
                unreadable.add(call.id)
                call.arguments = {}
    _answer_unreadable(environment, unreadable)
    played, run = play.play_tau2(case.domain, task, script, solo=case.solo, environment=environment)
    dumped = [message.model_dump(mode="json", exclude_none=True) for message in run.messages]
    places = _places(messages_of(dumped), unreadable)
    run.messages = _replayable(run.messages, unreadable)
    verdict = play.score_tau2(case.domain, task, run, solo=case.solo)
    raised = isinstance(verdict, type)
    result = {
        "termination": played.termination,
        "detail": "",
        "messages": dumped,
        "reward": None if raised else verdict["reward"],
        "reward_info": None if raised else verdict,
    }
    return Reference(record_of(case.key, result), places)


def _answer_unreadable(environment: Any, unreadable: set[str]) -> None:
    answer = environment.get_response

    def get_response(call: Any) -> Any:
        if call.requestor == "assistant" and call.id in unreadable:
            kind = tau2_compat.load().ToolMessage
            return kind(id=call.id, content=UNREADABLE, requestor="assistant", role="tool", error=True)
        return answer(call)

    environment.get_response = get_response


def _places(messages: list[Any], unreadable: set[str]) -> set[str]:
    return {
        f"{index}.{position}"
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
        for position, call in enumerate(message["tool_calls"] or [])
        if call["id"] in unreadable
    }


def _replayable(messages: list[Any], unreadable: set[str]) -> list[Any]:
    """What τ²'s evaluator can replay: without what it would have raised on."""
    kept = []
    for message in messages:
        if message.role == "tool" and message.requestor == "assistant" and message.id in unreadable:
            continue
        calls = getattr(message, "tool_calls", None)
        if message.role == "assistant" and calls and any(call.id in unreadable for call in calls):
            left = [call for call in calls if call.id not in unreadable]
            if not left and not message.has_text_content():
                continue
            message = message.model_copy(update={"tool_calls": left or None})
        kept.append(message)
    return kept
