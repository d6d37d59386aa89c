"""One failed episode beside its gold: everything that the rules look at, found once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tau2_slime.diagnosis.matching import leftover, pair_for
from tau2_slime.diagnosis.policy import clause_of
from tau2_slime.diagnosis.replay import GoldPlay, GoldWrite, Played, without
from tau2_slime.diagnosis.story import TRANSFER, Made, Said, Story
from tau2_slime.diagnosis.words import subject
from tau2_slime.errors import first_time
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.world.users import quality

if TYPE_CHECKING:
    from tau2_slime.world.environment import World

logger = logging.getLogger(__name__)


@dataclass
class Case:
    """An episode and what gold does in its place."""

    trajectory: Trajectory
    story: Story
    gold: GoldPlay
    played: Played
    domain: str
    split: str
    known: str
    """What the scenario gives the user to say; without what it must not know."""
    unknown: str
    """What the scenario says that the user does not know."""
    flaws: list[quality.Finding] = field(default_factory=list)
    """Of the user's messages; positions are indices of messages."""

    @property
    def scenario(self) -> str:
        return self.gold.scenario

    @property
    def world(self) -> World:
        return self.played.world

    @property
    def has_user_tools(self) -> bool:
        return self.world.environment.user_tools is not None

    @cached_property
    def made(self) -> list[Made]:
        """The writes that took effect."""
        return [call for call in self.story.calls if call.effective]

    @cached_property
    def transfer(self) -> Made | None:
        """The agent's first transfer to a human."""
        calls = self.story.calls
        return next((c for c in calls if c.name == TRANSFER and c.requestor == "assistant" and c.reached), None)

    @cached_property
    def _left(self) -> tuple[list[Made], list[GoldWrite]]:
        return leftover(self.made, self.gold.writes)

    @property
    def extra(self) -> list[Made]:
        """The writes that took effect and that gold has in no form."""
        return self._left[0]

    @property
    def missing(self) -> list[GoldWrite]:
        """Gold's writes that were never made."""
        return self._left[1]

    @property
    def counts_database(self) -> bool:
        return "DB" in self.gold.basis

    @property
    def world_as_gold(self) -> bool:
        """True if the world that the reward looks at is as gold leaves it."""
        if self.counts_database and self.played.differences:
            return False
        return not ("ENV_ASSERTION" in self.gold.basis and self.played.failed_assertions)

    @cached_property
    def divergent(self) -> list[Made]:
        """The agent's writes that lead away from gold, in their order."""
        found = []
        for call in self.extra:
            if call.requestor != "assistant":
                continue
            if self.counts_database:
                if call.touched & self.played.differing:
                    found.append(call)
            elif pair_for(call, self.missing) is not None or self._spoils(call):
                found.append(call)
        return found

    def _spoils(self, call: Made) -> bool:
        """True if more of the task's assertions hold without the call."""
        if not self.played.failed_assertions:
            return False
        left = without(self.story, call, self.gold, self.domain, self.split)
        return set(left) < set(self.played.failed_assertions)

    @cached_property
    def needed(self) -> list[GoldWrite]:
        """Gold's writes that were never made and whose record is not as gold leaves it."""
        if not self.counts_database:
            return self.missing if self.played.failed_assertions or "ACTION" in self.gold.basis else []
        return [write for write in self.missing if write.touched & self.played.differing]

    def paired(self, call: Made) -> GoldWrite | None:
        """The gold write of the same tool that a divergent call stands for."""
        return pair_for(call, self.missing)

    @cached_property
    def unsaid(self) -> list[str]:
        """What the task wants communicated and no text of the agent holds, by τ²'s own comparison."""
        said = [
            str(m.get("content")).lower().replace(",", "")
            for m in self.story.messages
            if m.get("role") == "assistant" and m.get("content")
        ]
        if "COMMUNICATE" not in self.gold.basis:
            return []
        return [info for info in self.gold.communicate if not any(info.lower() in text for text in said)]

    def clause(self, *patterns: str) -> str | None:
        """The first sentence of the policy that one of ``patterns`` matches; that there is none is said once a domain."""
        found = next((found for p in patterns if (found := clause_of(self.world.policy, p)) is not None), None)
        if found is None and any(patterns) and first_time("policy clause", self.domain):
            logger.warning(
                "the policy of %s in this τ² says a rule in other words (none match %s): such diagnoses name no clause",
                *(self.domain, " or ".join(filter(None, patterns))),
            )
        return found

    def alike(self, tool: str) -> bool:
        """True if more than one gold write is about what ``tool`` does, so that words alone do not tell them apart."""
        return sum(subject(write.name).pattern == subject(tool).pattern for write in self.gold.writes) > 1

    def heard_before(self, turn: int, *, own: bool = False) -> str:
        """All that tools have answered and the agent has said before the message ``turn``; ``own``: the user too."""
        roles = ("tool", "assistant", "user") if own else ("tool", "assistant")
        parts = [str(m.get("content") or "") for m in self.story.messages[:turn] if m.get("role") in roles]
        return "\n".join(parts)

    def last_user_text(self) -> Said | None:
        return next((one for one in reversed(self.story.said) if one.role == "user"), None)
