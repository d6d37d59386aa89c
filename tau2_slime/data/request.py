"""What to prepare: the options of the data preparation, typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tau2_slime.config.settings import AgentType
from tau2_slime.errors import ConfigError


@dataclass(frozen=True)
class DataRequest:
    """What to prepare. The defaults give the train and test files of every domain of the installed τ²."""

    domains: tuple[str, ...] = ()
    """Empty: every domain."""
    splits: tuple[str, ...] = ()
    """τ²'s split names. Empty: train and test, or everything that a domain without them has."""
    multi_domain_train: tuple[str, ...] = ()
    """One more file: the training tasks of these domains, shuffled. ``domain`` (its train split) or ``domain:split``."""
    weights: tuple[tuple[str, int], ...] = ()
    """How often each task of a domain stands in that file, such as (("retail", 2),). Names as in multi_domain_train."""
    seed: int = 42
    """For the shuffle and the fractions; a private generator, never the global one."""
    limit: int | None = None
    """At most so many tasks of each domain and split: the first ones, in τ²'s order."""
    fractions: tuple[tuple[str, float], ...] = ()
    """Divide every split but ``test`` at random, such as (("train", 0.9), ("dev", 0.1))."""
    exclude_splits: tuple[str, ...] | None = None
    """Leave out of the training files the tasks of these splits. None: ``test``, for every split but ``train``."""
    allow_test_tasks: bool = False
    """Let training files hold tasks of the domain's test split."""
    allow_llm_judge: bool = False
    """Keep tasks whose reward τ² asks an LLM judge for."""
    agent_type: AgentType = "llm"
    """Leave out what this agent cannot play."""
    drop_trivial: bool = False
    """Leave out what pays an agent that does nothing, or transfers to a human at once."""
    drop_order_dependent: bool = False
    """Leave out what depends on the order of the writes, or inside a list."""

    def arguments(self) -> dict[str, object]:
        """Everything but the domains and the seed, as the manifest records it."""
        return {
            "splits": list(self.splits),
            "weights": dict(self.weights),
            "limit": self.limit,
            "fractions": dict(self.fractions),
            "exclude_splits": None if self.exclude_splits is None else list(self.exclude_splits),
            "allow_test_tasks": self.allow_test_tasks,
            "allow_llm_judge": self.allow_llm_judge,
            "agent_type": self.agent_type,
            "drop_trivial": self.drop_trivial,
            "drop_order_dependent": self.drop_order_dependent,
        }


def parse_fractions(text: str) -> tuple[tuple[str, float], ...]:
    """``train=0.9,dev=0.1`` as pairs. Raises ConfigError for another form, and for shares that do not add up to 1."""
    pairs: list[tuple[str, float]] = []
    for item in text.split(","):
        name, _, share = item.partition("=")
        name = name.strip()
        try:
            value = float(share)
        except ValueError:
            value = 0.0
        if not name.replace("-", "").replace("_", "").isalnum() or not 0 < value <= 1:
            raise ConfigError(f"--fractions {text!r}: {item!r} is not name=share with a share in (0, 1]")
        pairs.append((name, value))
    if len({name for name, _ in pairs}) < len(pairs):
        raise ConfigError(f"--fractions {text!r} names a part twice")
    total = sum(share for _, share in pairs)
    if abs(total - 1) > 1e-6:
        raise ConfigError(f"--fractions {text!r} adds up to {total:g}, not to 1")
    return tuple(pairs)


def parse_weights(items: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """``["retail=2", "telecom=1"]`` as pairs. Raises ConfigError for another form."""
    pairs: list[tuple[str, int]] = []
    for item in items:
        name, _, weight = item.rpartition("=")
        if not name or not weight.isdecimal() or int(weight) < 1:
            raise ConfigError(
                f"--weights {item}: write NAME=TIMES with a whole number from 1 (a task is in the file so many times); "
                "for 1.5 to 1 write 3 and 2"
            )
        pairs.append((name, int(weight)))
    if len({name for name, _ in pairs}) < len(pairs):
        raise ConfigError(f"--weights {' '.join(items)} names a domain twice")
    return tuple(pairs)
