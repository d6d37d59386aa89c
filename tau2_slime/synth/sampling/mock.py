"""Mock: create a task, or mark one as completed. For tests and first steps."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tau2_slime.policy_rules.rules import NOTHING_STATED, Call
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of, pick_weighted

FRAMES: Mapping[str, tuple[str, ...]] = {
    "create": (
        "You want a new task called '{title}' for user_1.",
        "Please have the task '{title}' created for user_1.",
    ),
    "describe": (
        "You want a new task '{title}' with the description '{description}' for user_1.",
        "Please have a task '{title}' made for user_1, described as '{description}'.",
    ),
    "complete": (
        "You want {task} to be marked as completed.",
        "Please set the status of {task} to completed.",
    ),
    "finish": (
        "You want the new task to be marked as completed right away.",
        "Please set the task that was just made to completed.",
    ),
}
USUAL = {"create": 1.0, "describe": 0.3, "complete": 0.05, "finish": 1.0}
"""Kind of intent -> how often it is drawn. The database holds a single task that can be completed."""
_NEW, _STATUS = ("create", "describe"), ("complete", "finish")
_KINDS: Mapping[str, tuple[tuple[str, ...], ...]] = {"easy": ((*_NEW, "complete"),), "medium": (_NEW, _STATUS)}
"""Difficulty -> of which kinds each request is."""
_VERBS = ("Prepare", "Review", "Plan", "Order", "Clean", "Book", "Draft", "Print")
_THINGS = ("the budget", "the slides", "the meeting room", "the invoices", "the garden", "the agenda", "the catering")
_WHEN = ("on Monday", "on Friday", "before noon", "next week", "this month", "by spring")
_WITH = ("with the team", "in two copies", "as last year", "for the board", "at low cost")


def propose(rng: random.Random, difficulty: str, weights: Mapping[str, float]) -> Proposal | None:
    """One write for ``easy``, two for ``medium``; None for ``hard``: the database is too small.

    ``weights``: multiply `USUAL`.
    """
    odds = {kind: usual * weights.get(kind, 1.0) for kind, usual in USUAL.items()}
    by_difficulty: dict[str, list[tuple[str, ...]]] = {"easy": [(*_NEW, "complete")], "medium": [_NEW, _STATUS]}
    kinds = by_difficulty.get(difficulty, [])
    if not kinds or not all(any(odds[kind] for kind in allowed) for allowed in kinds):
        return None
    intents, calls = list[Intent](), list[Call]()
    for allowed in kinds:
        intent, call = _request(rng, pick_weighted(rng, odds, allowed))
        intents.append(intent)
        calls.append(call)
    return Proposal(
        domain="mock",
        difficulty=difficulty,
        user="user_1",
        intents=intents,
        calls=calls,
        reason=write(rng, intents, FRAMES),
        known="You are user_1.",
        unknown=None,
        manner=manner_of(rng),
        stated=NOTHING_STATED,
    )


def _request(rng: random.Random, kind: str) -> tuple[Intent, Call]:
    if kind in _STATUS:
        task = "task_1" if kind == "complete" else "task_2"  # the id of the first new one
        said: Mapping[str, str] = {"task": task} if kind == "complete" else {}
        intent = Intent(kind, said, {slot: (words,) for slot, words in said.items()})
        return intent, Call("update_task_status", {"task_id": task, "status": "completed"})
    title = f"{rng.choice(_VERBS)} {rng.choice(_THINGS)} {rng.choice(_WHEN)}"
    slots = {"title": title, **({"description": rng.choice(_WITH)} if kind == "describe" else {})}
    facts = {slot: (words,) for slot, words in slots.items()}
    return Intent(kind, slots, facts), Call("create_task", {"user_id": "user_1", **slots})
