"""What a finished sample says about its episode. One odd sample must not cost the whole batch its metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.outcome import SUCCESS, Blame
from tau2_slime.slime_adapter.sample import metadata_of

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeSample


@dataclass(frozen=True)
class Episode:
    """One τ² episode, as its sample's ``metadata["tau2"]`` describes it."""

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
    """True if the episode failed or was aborted: it says nothing about the policy."""
    reward: float | None
    """τ²'s official reward; None if excluded."""
    trained_reward: float | None
    """What the trainer gets (the shaped reward, if there is shaping); None if excluded."""
    prompt_tokens: int
    sampled_tokens: int
    context_tokens: int
    """Response tokens that were not sampled."""
    weight_versions: tuple[str, ...]
    """One for each call of the server that named its weights."""
    non_generation_time: float
    restarted: bool
    """The episode was aborted and then started over."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    """`EpisodeStats` as plain data; keys of other versions may be missing."""
    telemetry: Mapping[str, float] = field(default_factory=dict)
    """The figures of `episode.telemetry`, and those of a run's own metrics."""

    @property
    def success(self) -> bool:
        """True if τ² paid its full reward."""
        return self.reward is not None and self.reward >= SUCCESS

    def number(self, name: str) -> float:
        """A counter of `stats`, 0.0 if there is none."""
        return number(self.stats.get(name))

    def counts(self, name: str) -> dict[str, float]:
        """A mapping of counters of `stats`, empty if there is none."""
        return _numbers(self.stats.get(name))


def _numbers(value: object) -> dict[str, float]:
    return {str(k): number(v) for k, v in value.items()} if isinstance(value, Mapping) else {}


def number(value: object) -> float:
    """``value`` as a finite float; 0.0 if it is not a number."""
    try:
        out = float(value)  # type: ignore[arg-type]  # that is the question
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return out if math.isfinite(out) else 0.0


def flatten(samples: Iterable[SlimeSample | list[SlimeSample]]) -> Iterator[SlimeSample]:
    """Samples one by one, from a flat list, from groups, or from groups of fan-out lists."""
    for sample in samples:
        if isinstance(sample, (list, tuple)):
            yield from flatten(sample)
        else:
            yield sample


def episode_of(sample: SlimeSample) -> Episode | None:
    """The sample's episode; None if it is of another data source of a mixed batch."""
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


def episodes_of(samples: Iterable[SlimeSample | list[SlimeSample]]) -> tuple[list[Episode], int]:
    """``(episodes, foreign)``: the episodes of ``samples``, and the number of samples from other data sources."""
    found = [episode_of(sample) for sample in flatten(samples)]
    ours = [episode for episode in found if episode is not None]
    return ours, len(found) - len(ours)


def _trained(sample: SlimeSample) -> float | None:
    reward = getattr(sample, "reward", None)
    return None if reward is None or isinstance(reward, Mapping) else number(reward)


def _tokens(sample: SlimeSample, known: object) -> tuple[int, int, int]:
    """``(prompt, sampled, context)`` tokens: as ``known`` says, else as the mask says, which is all 0 in removed samples."""
    if isinstance(known, Mapping):
        return int(number(known.get("prompt"))), int(number(known.get("sampled"))), int(number(known.get("context")))
    response = int(number(getattr(sample, "response_length", 0)))
    sampled = sum(1 for mask in getattr(sample, "loss_mask", None) or () if mask)
    return max(0, len(getattr(sample, "tokens", None) or ()) - response), sampled, max(0, response - sampled)
