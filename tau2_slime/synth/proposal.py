"""What a sampler proposes: a customer, intents, the gold calls for them, and the native task that holds all of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tau2_slime.policy_rules.rules import Call, Stated
from tau2_slime.synth.frames import Intent
from tau2_slime.world import tau2_compat

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

Difficulty = Literal["easy", "medium", "hard"]
WRITES: dict[str, tuple[int, int]] = {"easy": (1, 1), "medium": (2, 5), "hard": (6, 10)}
"""Difficulty -> fewest and most gold writes."""
MANNERS = (
    "You are polite and to the point.",
    "You are in a hurry and answer in few words.",
    "You are friendly and like to chat a little, but you stay with your request.",
    "You are a bit impatient. You want everything settled in this conversation.",
    "You are organized and mention one request at a time.",
    "You are anxious and ask the agent to repeat what will happen before you agree.",
    "You are calm. You give details only when the agent asks for them.",
    "You write casually, without much punctuation.",
    "You are careful: you read every summary and confirm it with a clear yes if it is what you asked for.",
    "You are cheerful and thank the agent often.",
    "You are tired after a long day and would like this to be over soon.",
    "You are used to such calls and have all your details at hand.",
)
ENDINGS = (
    "If the agent asks for a confirmation of what you want, you say yes.",
    "You agree to what the agent summarises as long as it is what you asked for.",
    "You do not want anything beyond these requests.",
    "You make no other request, and you end the conversation once everything is done.",
    "When all is done, you say goodbye.",
)


@dataclass
class Proposal:
    """A task before the gates."""

    domain: str
    difficulty: str
    user: str
    """The source customer: what train and dev are split by."""
    intents: list[Intent]
    calls: list[Call]
    reason: str
    known: str
    unknown: str | None
    manner: str
    stated: Stated
    communicate: list[str] = field(default_factory=list)
    row: dict[str, Any] | None = None
    """The task itself where a domain builds it in its own way (telecom)."""

    def task_row(self, task_id: str) -> dict[str, Any]:
        """The native row. Raises pydantic's ValidationError if it is none."""
        if self.row is not None:
            return {**self.row, "id": task_id}
        return native_row(self, task_id)

    def task(self, task_id: str) -> Task:
        """The native task."""
        found: Task = tau2_compat.load().Task.model_validate(self.task_row(task_id))
        return found


def native_row(proposal: Proposal, task_id: str) -> dict[str, Any]:
    """The row of a domain whose reward compares databases."""
    return {
        "id": task_id,
        "description": {
            "purpose": f"{proposal.difficulty}: {', '.join(intent.kind for intent in proposal.intents)}",
            "relevant_policies": None,
            "notes": None,
        },
        "user_scenario": {
            "persona": None,
            "instructions": {
                "domain": proposal.domain,
                "reason_for_call": proposal.reason,
                "known_info": proposal.known,
                "unknown_info": proposal.unknown,
                "task_instructions": proposal.manner,
            },
        },
        "ticket": None,
        "initial_state": None,
        "evaluation_criteria": {
            "actions": [
                {
                    "action_id": f"{task_id}_{number}",
                    "requestor": call.requestor,
                    "name": call.name,
                    "arguments": dict(call.arguments),
                    "info": None,
                    "compare_args": None,
                }
                for number, call in enumerate(proposal.calls)
            ],
            "env_assertions": None,
            "communicate_info": list(proposal.communicate),
            "nl_assertions": None,
            "reward_basis": ["DB", "COMMUNICATE"],
        },
    }


def manner_of(rng: random.Random) -> str:
    """How the customer speaks, in two sentences."""
    return f"{rng.choice(MANNERS)} {rng.choice(ENDINGS)}"


def split_count(rng: random.Random, difficulty: str) -> int:
    """How many writes a proposal of this difficulty gets."""
    least, most = WRITES[difficulty]
    return rng.randint(least, most)


def pick_weighted(rng: random.Random, weights: Mapping[str, float], allowed: Sequence[str]) -> str:
    """One of ``allowed``, in proportion to its weight."""
    return rng.choices(list(allowed), [weights.get(name, 1.0) for name in allowed])[0]
