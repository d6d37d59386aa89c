"""What a finished sample says about its episode, read with care: an odd sample must not cost the whole batch its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.outcome import SUCCESS, Blame
from tau2_slime.slime_adapter.sample import metadata_of


@dataclass(frozen=True)
class Episode:
    """One τ² episode as its sample's ``metadata["tau2"]`` tells it."""

    domain: str
    task_split: str
    task_id: str
    """Empty if the episode failed before its task was known."""
    agent_type: str
    user_model: str
    """Empty in solo episodes."""
    termination: str
    blame: str
    excluded: bool
    """Failed or aborted: it says nothing about the policy."""
    reward: float | None
    """τ²'s official reward; None if excluded."""
    trained_reward: float | None
    """What the trainer gets (shaped, if shaping is on); None if excluded."""
    prompt_tokens: int
    sampled_tokens: int
    context_tokens: int
    """Response tokens that were not sampled."""
    weight_versions: tuple[str, ...]
    """One for each call of the server that named its weights."""
    non_generation_time: float
    restarted: bool
    """Taken up again after an abort, but from the beginning."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    """`EpisodeStats` as plain data; keys of other versions may be missing."""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """What `telemetry` counted."""

    @property
    def success(self) -> bool:
        return self.reward is not None and self.reward >= SUCCESS

    def number(self, name: str) -> float:
        """A counter of `stats`, 0.0 if there is none."""
        return number(self.stats.get(name))

    def counts(self, name: str) -> dict[str, float]:
        """A mapping of counters of `stats`, empty if there is none."""
        return _numbers(self.stats.get(name))


def _numbers(value: Any) -> dict[str, float]:
    return {str(k): number(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def number(value: Any) -> float:
    """``value`` as a finite float; 0.0 for what is none."""
    try:
        out = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return out if math.isfinite(out) else 0.0


def flatten(samples: Iterable[Any]) -> Iterator[Any]:
    """Samples one by one: slime hands over a flat list, groups, or groups of fan-out lists."""
    for sample in samples:
        if isinstance(sample, (list, tuple)):
            yield from flatten(sample)
        else:
            yield sample


def episode_of(sample: Any) -> Episode | None:
    """The sample's episode; None if this package did not play it (another data source of a mixed batch)."""
    tau2 = metadata_of(sample).get("tau2")
    if not isinstance(tau2, Mapping):
        return None
    row = metadata_of(sample)
    blame = str(tau2.get("blame") or "")
    excluded = bool(tau2.get("excluded")) or blame in (Blame.USER, Blame.INFRASTRUCTURE)
    official = tau2.get("official_reward")
    prompt, sampled, context = _tokens(sample, tau2.get("tokens"))
    stats = tau2.get("stats")
    return Episode(
        domain=str(tau2.get("domain") or row.get("domain") or "unknown"),
        task_split=str(tau2.get("task_split") or row.get("task_split") or row.get("split") or ""),
        task_id=str(tau2.get("task_id") or ""),
        agent_type=str(tau2.get("agent_type") or ""),
        user_model=str(tau2.get("user_model") or ""),
        termination=str(tau2.get("termination") or ""),
        blame=blame,
        excluded=excluded,
        reward=None if excluded or official is None else number(official),
        trained_reward=None if excluded else _trained(sample),
        prompt_tokens=prompt,
        sampled_tokens=sampled,
        context_tokens=context,
        weight_versions=tuple(str(v) for v in getattr(sample, "weight_versions", None) or () if v is not None),
        non_generation_time=number(getattr(sample, "non_generation_time", 0.0)),
        restarted=bool(tau2.get("restarted")),
        stats=stats if isinstance(stats, Mapping) else {},
        telemetry=_numbers(tau2.get("telemetry")),
    )


def episodes_of(samples: Iterable[Any]) -> tuple[list[Episode], int]:
    """The episodes of ``samples``, flattened, and how many samples are none of ours."""
    found = [episode_of(sample) for sample in flatten(samples)]
    ours = [episode for episode in found if episode is not None]
    return ours, len(found) - len(ours)


def _trained(sample: Any) -> float | None:
    reward = getattr(sample, "reward", None)
    return None if reward is None or isinstance(reward, Mapping) else number(reward)


def _tokens(sample: Any, known: Any) -> tuple[int, int, int]:
    """Prompt, sampled and context tokens. A removed sample's mask is all zero, so the mask is only the second source."""
    if isinstance(known, Mapping):
        return int(number(known.get("prompt"))), int(number(known.get("sampled"))), int(number(known.get("context")))
    response = int(number(getattr(sample, "response_length", 0)))
    sampled = sum(1 for mask in getattr(sample, "loss_mask", None) or () if mask)
    return max(0, len(getattr(sample, "tokens", None) or ()) - response), sampled, max(0, response - sampled)
