"""Which rules of a domain's policy a write breaks, and the sentence of *this* release's policy that says so.

The rules are those of `policy_rules`. Each has a short pattern, and `clause_of` finds the sentence that it matches: so no
text of the policy is copied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tau2_slime.policy_rules.check import POLICIES, PolicyWatch
from tau2_slime.policy_rules.rules import Call, Past, Violation
from tau2_slime.policy_rules.stated import stated_in

if TYPE_CHECKING:
    from tau2_slime.world.environment import World

Arguments = Mapping[str, Any]
NOTHING_BEFORE = Past()


@lru_cache(maxsize=512)
def clause_of(policy: str, pattern: str) -> str | None:
    """Heading path and sentence of ``policy`` that ``pattern`` matches; None if this release says it in other words."""
    headings: list[str] = []
    for line in policy.splitlines() if pattern else ():
        text = line.strip()
        if text.startswith("#"):
            level = len(text) - len(text.lstrip("#"))
            headings = [*headings[: level - 1], text.lstrip("# ").strip()]
            continue
        found = re.search(pattern, text, re.I)
        if found:
            sentences = re.split(r"(?<=[.!?])\s+", text.lstrip("-* "))
            sentence = next((one for one in sentences if re.search(pattern, one, re.I)), text)
            return " > ".join([*headings[1:], sentence])
    return None


def violations_of(
    domain: str, world: World, name: str, arguments: Arguments, told: str, past: Past = NOTHING_BEFORE
) -> tuple[Violation, ...]:
    """The rules that a write of the agent breaks in the state of ``world``; none in a domain without rules. Never raises.

    ``told``: what the customer says, for rules that depend on a reason. ``past``: what a `PolicyWatch` knows of the calls
    before. Rules that a gold list may leave out (`Rule.soft`) are not asked.
    """
    if domain not in POLICIES:
        return ()
    watch = PolicyWatch(POLICIES[domain], stated_in(domain, told), past)
    with world.reading() as db:
        found = watch.violations(db, Call(name, arguments))
    return tuple(one for one in found if not one.rule.soft)


class CallsBefore:
    """What rules may know of the calls that stand before a write: the customer, a transfer, earlier changes."""

    def __init__(self, domain: str, world: World) -> None:
        self._watch = PolicyWatch(POLICIES[domain]) if domain in POLICIES else None
        self._world = world

    @property
    def past(self) -> Past:
        return self._watch.past if self._watch is not None else NOTHING_BEFORE

    def add(self, requestor: str, name: str, arguments: Arguments, answer: str, error: bool) -> None:
        """A call was made in the world's present state, and answered."""
        if self._watch is None:
            return
        with self._world.reading() as db:
            call = Call(name, arguments, "user" if requestor == "user" else "assistant")
            self._watch.ran(db, call, answer, error=error)
