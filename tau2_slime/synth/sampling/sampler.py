"""What the samplers of airline and retail share: requests are drawn one after the other until there are enough writes."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from tau2_slime.policy_rules.rules import Call, Record
from tau2_slime.synth.frames import Intent
from tau2_slime.synth.proposal import Proposal, pick_weighted, split_count
from tau2_slime.synth.sandbox import Sandbox


class Request(NamedTuple):
    """One wish of the customer."""

    intent: Intent
    reads: list[Call]
    """What an agent looks up before the write."""
    call: Call


class Asked(NamedTuple):
    """Something that the customer wants to be told."""

    intent: Intent
    reads: list[Call]
    value: str


class Sampler(ABC):
    """Builds one proposal for one customer, in an untouched environment in which nothing is played."""

    USUAL: ClassVar[Mapping[str, float]]
    """Kind of request -> how often it is drawn; a plan's weights multiply it."""
    TRIES: ClassVar[int] = 14
    """Draws for each write that is wanted."""

    def __init__(self, rng: random.Random, box: Sandbox, user_id: str, weights: Mapping[str, float]) -> None:
        self.rng, self.box = rng, box
        self._weights = {kind: usual * weights.get(kind, 1.0) for kind, usual in self.USUAL.items()}
        with box.reading() as db:
            self.db: Any = db
        self.user: Record = self.db.users[user_id]
        self.requests: list[Request] = []
        self.asked: list[Asked] = []
        self.used: dict[str, set[str]] = {}
        """Record -> kinds of requests that concern it."""

    def build(self, difficulty: str) -> Proposal | None:
        """None if the customer has no room for the writes after all."""
        wanted = split_count(self.rng, difficulty)
        if not any(self._weights.values()):
            return None
        with self.box.reading():
            for _ in range(wanted * self.TRIES):
                if len(self.requests) == wanted:
                    break
                made = self.request(pick_weighted(self.rng, self._weights, tuple(self.USUAL)))
                if made is not None:
                    self.requests.append(made)
            if len(self.requests) < wanted:
                return None
            self.ask()
            return self.proposal(difficulty)

    @abstractmethod
    def request(self, kind: str) -> Request | None:
        """A request of this kind that the policy and the earlier requests allow; None if there is none."""

    @abstractmethod
    def ask(self) -> None:
        """Fill ``asked``, now and then."""

    @abstractmethod
    def proposal(self, difficulty: str) -> Proposal:
        """The requests as text and as calls."""

    def intents(self) -> list[Intent]:
        """Of all that is requested and asked."""
        return [*(request.intent for request in self.requests), *(asked.intent for asked in self.asked)]


def once(calls: Iterable[Call]) -> list[Call]:
    """``calls`` without repetitions."""
    out: list[Call] = []
    for call in calls:
        if call not in out:
            out.append(call)
    return out
