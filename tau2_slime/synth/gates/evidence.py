"""G9, G13 and G17: what the gold does is said, nothing else fits what is said, and all that is said is done.

Own words are judged word for word. In other people's prose ("the same as my other order") only what is clear is judged: a
value that stands nowhere, an order that nobody mentions, two records that fit. The rest is reported as without evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tau2_slime.synth.gates import evidence_airline, evidence_retail, evidence_telecom
from tau2_slime.synth.gates.case import Case, Findings, word_in

if TYPE_CHECKING:
    from collections.abc import Callable

_JUDGES: dict[str, Callable[[Case, Findings], None]] = {
    "retail": evidence_retail.check,
    "airline": evidence_airline.check,
    "telecom": evidence_telecom.check,
}


def check(case: Case, found: Findings) -> None:
    """G9, G13 and G17, as far as the text of the task lets them be judged."""
    if "G2" in found.failed:
        return  # arguments that are none
    judge = _JUDGES.get(case.domain, _literal)
    judge(case, found)


def _literal(case: Case, found: Findings) -> None:
    """Mock: every value of a write stands in the text, or in what the tools answered before."""
    history = case.task.initial_state.message_history if case.task.initial_state else None
    known = f"{case.text} {' '.join((m.content or '') for m in history or []).lower()}"
    for step in case.steps:
        if case.start.is_write(step.call):
            for key, value in step.call.arguments.items():
                if key in ("task_id", "status", "user_id", "title") and not word_in(known, str(value).lower()):
                    found.fail("G9", f"{step.call.name}: {key} {value!r} is not said")
        known += f" {step.answer.lower()}"
