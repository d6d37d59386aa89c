"""One task under examination, and what several gates need to know about it."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tau2_slime.policy_rules.rules import Call, Stated
from tau2_slime.policy_rules.stated import stated_by, text_of
from tau2_slime.synth.sandbox import Sandbox, Step, gold_calls

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


def plain(text: str) -> str:
    """Lower case, one blank between words, typographic marks made plain.

    >>> plain("You’d  like\\n It")
    "you'd like it"
    """
    text = text.lower().replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    return " ".join(text.split())


@dataclass
class Findings:
    """What the gates found: a gate that is in neither mapping holds."""

    failed: dict[str, str] = field(default_factory=dict)
    """Gate -> the first reason."""
    no_evidence: dict[str, str] = field(default_factory=dict)
    """Gate -> why it could not be judged."""

    def fail(self, gate: str, reason: str) -> None:
        self.failed.setdefault(gate, reason)

    def unknown(self, gate: str, reason: str) -> None:
        self.no_evidence.setdefault(gate, reason)


class Case:
    """A task with its gold calls, played once."""

    def __init__(self, domain: str, task: Task, stated: Stated | None = None) -> None:
        """``stated``: what the customer states, if a generator knows it as data; else it is read in the text."""
        self.domain, self.task = domain, task
        self.stated = stated if stated is not None else stated_by(domain, task)
        self.calls = gold_calls(task)
        self.text = plain(text_of(task))

    def sandbox(self) -> Sandbox:
        """A fresh environment in the task's initial state. Raises what τ² raises if there is none."""
        return Sandbox(self.domain, self.task, self.stated)

    @cached_property
    def start(self) -> Sandbox:
        """The initial state; nobody plays in it."""
        return self.sandbox()

    @cached_property
    def _played(self) -> tuple[list[Step], Hashable, Sandbox]:
        box = self.sandbox()
        steps = [box.step(call) for call in self.calls]
        return steps, box.state(), box

    @property
    def steps(self) -> list[Step]:
        """The gold calls as they went."""
        return self._played[0]

    @property
    def end(self) -> Hashable:
        """The gold end state."""
        return self._played[1]

    @property
    def ended(self) -> Sandbox:
        """The environment after the gold calls."""
        return self._played[2]

    @cached_property
    def writes(self) -> list[Call]:
        """The gold calls that may change something, of both sides."""
        return [call for call in self.calls if self.start.is_write(call)]

    @cached_property
    def in_database(self) -> bool:
        """True if the reward compares databases; else assertions about the world decide."""
        criteria = self.task.evaluation_criteria
        return criteria is not None and any(basis.value == "DB" for basis in criteria.reward_basis)

    @cached_property
    def customer(self) -> str | None:
        """The user id that the gold works with; else the one whose id, email or name stands in the text."""
        found = self.ended.customer
        if found is not None:
            return found
        with self.start.reading() as db:
            users = getattr(db, "users", {})
            for user_id, user in users.items():
                if word_in(self.text, user_id.lower()):
                    return str(user_id)
                name = getattr(user, "name", None)
                if not isinstance(name, BaseModel):
                    continue  # mock's users
                full = f"{user.name.first_name} {user.name.last_name}".lower()
                if full in self.text and user.address.zip in self.text:
                    return str(user_id)
        return None

    @property
    def communicated(self) -> list[str]:
        criteria = self.task.evaluation_criteria
        return list((criteria.communicate_info if criteria is not None else None) or [])

    def assertions_hold(self, box: Sandbox) -> bool:
        """True if every environment assertion of the task holds in ``box``. One that raises does not hold."""
        criteria = self.task.evaluation_criteria
        for assertion in (criteria.env_assertions if criteria is not None else None) or []:
            try:
                if not box.world.environment.run_env_assertion(assertion, raise_assertion_error=False):
                    return False
            except Exception:  # τ²'s own function, in whatever state the calls have left
                return False
        return True


def word_in(text: str, word: str) -> bool:
    """True if ``word`` stands in ``text`` as a whole word or number; both are `plain`.

    >>> word_in("the 10 x zoom", "1"), word_in("size 10.", "10")
    (False, True)
    """
    return re.search(rf"(?<![\w.]){re.escape(word)}(?![\w]|\.\d)", text) is not None
