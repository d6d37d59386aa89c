"""The groups of a step that are worth a look: the worst, and those whose attempts differ most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from statistics import fmean, pvariance
from typing import TYPE_CHECKING

from tau2_slime.observe.episodes import Episode, episode_of, flatten

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeSample

COLUMNS = (
    *("step", "why", "group", "domain", "task", "attempts", "solved", "excluded"),
    *("mean reward", "rewards", "ended", "simulators", "turns"),
)
Cell = str | int | float


def worth_a_look(samples: Iterable[SlimeSample | list[SlimeSample]], step: int, most: int) -> list[tuple[Cell, ...]]:
    """Rows of `COLUMNS`: the ``most`` worst groups by mean reward, then the ``most`` most divided by their variance.

    A group in which all attempts earn the same is not divided; one whose attempts are all excluded is neither.
    """
    groups: dict[Hashable, list[Episode]] = {}
    for sample in flatten(samples):
        episode = episode_of(sample)
        if episode is not None and getattr(sample, "group_index", None) is not None:
            groups.setdefault(sample.group_index, []).append(episode)
    known = [(group, episodes, rewards) for group, episodes in groups.items() if (rewards := _rewards(episodes))]
    worst = sorted(known, key=lambda one: fmean(one[2]))[:most]
    divided = sorted((one for one in known if pvariance(one[2]) > 0), key=lambda one: -pvariance(one[2]))[:most]
    return [
        _row(step, why, group, episodes, rewards)
        for why, chosen in (("worst", worst), ("most divided", divided))
        for group, episodes, rewards in chosen
    ]


def _rewards(episodes: Sequence[Episode]) -> list[float]:
    return [episode.reward for episode in episodes if episode.reward is not None]


def _row(
    step: int, why: str, group: Hashable, episodes: Sequence[Episode], rewards: Sequence[float]
) -> tuple[Cell, ...]:
    ended = Counter(episode.termination for episode in episodes)
    first = next((episode for episode in episodes if episode.task_id), episodes[0])
    return (
        *(step, why, str(group), first.domain, first.task_id, len(episodes)),
        *(sum(episode.success for episode in episodes), sum(episode.excluded for episode in episodes)),
        *(fmean(rewards), " ".join(f"{reward:.3g}" for reward in rewards)),
        ", ".join(f"{name} {count}" for name, count in ended.most_common()),
        ", ".join(sorted({episode.user_model for episode in episodes} - {""})),
        fmean(episode.number("agent_turns") for episode in episodes),
    )
