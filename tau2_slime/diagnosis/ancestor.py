"""The two lists of the earlier tool's error identification, from a diagnosis instead of a model's answers."""

from __future__ import annotations

from collections.abc import Sequence

from tau2_slime.diagnosis.findings import Diagnosis, What, Who
from tau2_slime.diagnosis.table import words_of

_AUTHORS = {Who.AGENT: "agent", Who.USER: "user"}
_TYPES = {
    What.WRONG_TOOL: "called_wrong_tool",
    What.WRONG_ARGUMENT: "used_wrong_tool_argument",
    What.UNCONFIRMED_WRITE: "used_wrong_tool_argument",
    What.MISSING_ACTION: "goal_partially_completed",
    What.WRONG_REFUSAL: "wrong_refusal",
    What.PREMATURE_TRANSFER: "premature_transfer",
    What.NOT_COMMUNICATED: "not_communicated",
}


def as_ancestor(diagnoses: Sequence[Diagnosis]) -> dict[str, object]:
    """``fault_assignment_analysis`` of all failures and ``fault_type_analysis`` of the agent's, as JSON has them."""
    failed = [one for one in diagnoses if one.failed]
    return {
        "fault_assignment_analysis": [
            {**_key(one), "author": _AUTHORS.get(one.finding.who, "environment"), "description": _words(one)}
            for one in failed
        ],
        "fault_type_analysis": [
            {**_key(one), "fault_type": _TYPES.get(What(one.finding.what), "other"), "description": _words(one)}
            for one in failed
            if one.finding.who is Who.AGENT
        ],
    }


def _key(one: Diagnosis) -> dict[str, object]:
    number = one.key.task_id.removeprefix("v1_")
    return {"task_id": int(number) if number.isdecimal() else one.key.task_id, "trial": one.key.trial}


def _words(one: Diagnosis) -> str:
    return f"{one.finding.what} at message {one.finding.turn}: {words_of(one.finding.evidence)}"
