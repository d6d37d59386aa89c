"""Mock: create a task, or mark one as completed. For tests and first steps."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tau2_slime.policy_rules.rules import NOTHING_STATED, Call
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of

FRAMES: Mapping[str, tuple[str, ...]] = {
    "create": (
        "You want a new task called '{title}' for user_1.",
        "Please have the task '{title}' created for user_1.",
    ),
}
_VERBS = ("Prepare", "Review", "Plan", "Order", "Clean", "Book", "Draft", "Print")
_THINGS = ("the budget", "the slides", "the meeting room", "the invoices", "the garden", "the agenda", "the catering")
_WHEN = ("on Monday", "on Friday", "before noon", "next week", "this month", "by spring")


def propose(rng: random.Random, difficulty: str) -> Proposal | None:
    """One proposal with a single write; None for anything but ``easy``: new ids would depend on the order."""
    if difficulty != "easy":
        return None
    title = f"{rng.choice(_VERBS)} {rng.choice(_THINGS)} {rng.choice(_WHEN)}"
    intents = [Intent("create", {"title": title}, {"title": (title,)})]
    return Proposal(
        domain="mock",
        difficulty=difficulty,
        user="user_1",
        intents=intents,
        calls=[Call("create_task", {"user_id": "user_1", "title": title})],
        reason=write(rng, intents, FRAMES),
        known="You are user_1.",
        unknown=None,
        manner=manner_of(rng),
        stated=NOTHING_STATED,
    )
