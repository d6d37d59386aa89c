"""One task of one dataset and how its attempts went: what statistics are made of."""

from __future__ import annotations

from dataclasses import dataclass

from tau2_slime.outcome import SUCCESS


@dataclass(frozen=True)
class Unit:
    """One task of one dataset, and how its attempts went."""

    dataset: str
    domain: str
    task: str
    """The task's name within its domain; equal in every dataset that plays it."""
    user_model: str
    outcomes: tuple[float | None, ...]
    """Reward by attempt, in order; None: excluded, or not played."""
    played: int | None = None
    """Attempts with an end, the excluded ones among them; None: all of `outcomes`."""

    @property
    def rewards(self) -> list[float]:
        """Of the usable attempts."""
        return [reward for reward in self.outcomes if reward is not None]

    @property
    def successes(self) -> list[bool | None]:
        """Whether each attempt has τ²'s full reward; None where `outcomes` is None."""
        return [None if reward is None else reward >= SUCCESS for reward in self.outcomes]

    @property
    def n(self) -> int:
        """Usable attempts."""
        return len(self.rewards)

    @property
    def c(self) -> int:
        """Usable attempts that succeeded."""
        return sum(success is True for success in self.successes)

    @property
    def rate(self) -> float:
        """Share of the usable attempts that succeeded: pass^1. Raises ZeroDivisionError if no attempt is usable."""
        return self.c / self.n

    @property
    def played_attempts(self) -> int:
        return len(self.outcomes) if self.played is None else self.played

    @property
    def excluded(self) -> int:
        """Attempts that ended without saying anything about the agent."""
        return self.played_attempts - self.n
