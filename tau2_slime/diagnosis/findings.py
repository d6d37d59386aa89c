"""The vocabulary of a diagnosis: who is at fault, what happened, where, and the words that show it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

LONGEST = 200
"""Characters of one quotation."""


class Who(StrEnum):
    """Whose fault a failure is."""

    NONE = "none"
    """It is a success."""
    AGENT = "agent"
    USER = "user"
    """The user simulator."""
    TASK = "task"
    """The task's label: what the episode did is as right as gold."""
    INFRASTRUCTURE = "infrastructure"


class What(StrEnum):
    """What happened, in the order of decision of each side. `docs/diagnose.md` defines each."""

    NONE = "none"
    # the agent
    WRONG_TOOL = "wrong_tool"
    WRONG_ARGUMENT = "wrong_argument"
    WRONG_ORDER = "wrong_order"
    MISSING_ACTION = "missing_action"
    EXTRA_ACTION = "extra_action"
    UNCONFIRMED_WRITE = "unconfirmed_write"
    NOT_COMMUNICATED = "not_communicated"
    PREMATURE_TRANSFER = "premature_transfer"
    WRONG_REFUSAL = "wrong_refusal"
    MALFORMED_CALL = "malformed_call"
    ERROR_LIMIT = "error_limit"
    STEP_LIMIT = "step_limit"
    LENGTH_LIMIT = "length_limit"
    # the user simulator
    PREMATURE_STOP = "premature_stop"
    INVENTED = "invented"
    OFF_SCRIPT = "off_script"
    WITHHELD = "withheld"
    REFUSED_OFFER = "refused_offer"
    ROLE_FLIP = "role_flip"
    LEAK = "leak"
    CLAIMED_NOT_DONE = "claimed_not_done"
    MISREPORTED = "misreported"
    SIMULATOR_FAILURE = "simulator_failure"
    # the task, the machines, and what is left
    GOLD_LABEL = "gold_label"
    ORDER_DEPENDENT = "order_dependent"
    INFRASTRUCTURE = "infrastructure"
    OTHER = "other"


@dataclass(frozen=True)
class Evidence:
    """A quotation from a message, or a field with its value here and in gold; each at most `LONGEST` characters."""

    turn: int | None = None
    """Index of the message; None for the state at the end."""
    text: str | None = None
    """Words that stand in that message exactly like this."""
    name: str | None = None
    """Of a field: of a call's arguments, or of the database."""
    here: str | None = None
    gold: str | None = None

    def to_dict(self) -> dict[str, object]:
        """As `diagnosis.jsonl` has it; absent parts are left out."""
        if self.text is not None:
            return {"turn": self.turn, "text": self.text[:LONGEST]}
        shown = {"field": self.name, "here": _cut(self.here), "gold": _cut(self.gold)}
        return {"turn": self.turn, **{key: value for key, value in shown.items() if value is not None}}


def _cut(value: str | None) -> str | None:
    return value if value is None else value[:LONGEST]


def as_text(value: object) -> str:
    """``value`` as a field of evidence shows it: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong, or that a reader should know (a flag)."""

    who: Who
    what: str
    """A member of `What`, or the name of a flag."""
    turn: int | None = None
    evidence: tuple[Evidence, ...] = ()
    sure: float = 0.9
    """How sure the rule is, from 0 to 1."""
    detail: str = ""
    """For a wrong argument: record, item, amount, payment or value."""
    tool: str = ""
    """The tool that it is about."""
    clause: str | None = None
    """Heading path and sentence of the policy."""

    def to_dict(self) -> dict[str, object]:
        """As it stands in ``also``."""
        shown: dict[str, object] = {"who": self.who.value, "what": str(self.what), "turn": self.turn}
        if self.evidence:
            shown["evidence"] = [one.to_dict() for one in self.evidence]
        return shown


def agent_finding(
    what: What,
    turn: int,
    *evidence: Evidence,
    sure: float = 0.9,
    tool: str = "",
    detail: str = "",
    clause: str | None = None,
) -> Finding:
    return Finding(Who.AGENT, what, turn, evidence, sure, detail, tool, clause)


@dataclass(frozen=True)
class Key:
    """What names one episode among all that are read: task ids alone repeat between domains and attempts."""

    run: str
    domain: str
    task_id: str
    trial: str
    dataset: str = ""


@dataclass
class Diagnosis:
    """What is wrong with one episode."""

    key: Key
    reward: float | None
    finding: Finding
    also: list[Finding] = field(default_factory=list)
    judge: dict[str, Any] | None = None
    """What a model said, kept apart: `judge.read_opinion` with ``model`` and ``agrees``."""
    user_model: str = ""
    episode: str = ""
    """The episode's name in its file, as `tau2-slime inspect` shows it."""
    split: str = ""
    """The split or task file that the run recorded."""

    @property
    def failed(self) -> bool:
        return self.finding.who is not Who.NONE

    def to_dict(self) -> dict[str, object]:
        """A line of `diagnosis.jsonl`."""
        found = self.finding
        trial = self.key.trial
        return {
            "run": self.key.run,
            **({"dataset": self.key.dataset} if self.key.dataset else {}),
            "domain": self.key.domain,
            **({"task_split": self.split} if self.split else {}),
            "task_id": self.key.task_id,
            "trial": int(trial) if trial.isdecimal() else trial,
            "reward": self.reward,
            "who": found.who.value,
            "what": str(found.what),
            **({"detail": found.detail} if found.detail else {}),
            **({"tool": found.tool} if found.tool else {}),
            "turn": found.turn,
            "clause": found.clause,
            "evidence": [one.to_dict() for one in found.evidence],
            "also": [one.to_dict() for one in self.also],
            "sure": found.sure,
            "by": "rules",
            "user_model": self.user_model,
            "episode": self.episode,
            **({"judge": self.judge} if self.judge is not None else {}),
        }
