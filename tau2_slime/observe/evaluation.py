"""The samples of one evaluation dataset -> pass@k, pass^k and the metrics of its episodes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from tau2_slime.observe.episodes import Episode, episode_of, flatten
from tau2_slime.observe.metrics import episode_metrics, tag
from tau2_slime.observe.passk import Tally, pass_metrics
from tau2_slime.slime_adapter.sample import metadata_of

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeSample


def dataset_metrics(
    samples: Iterable[SlimeSample | list[SlimeSample]], samples_per_prompt: int | None = None
) -> dict[str, float]:
    """Metrics of one dataset, named without a prefix; empty if all its samples are of other data sources.

    ``samples_per_prompt``: the dataset's own setting, which is the largest k. None: the fewest samples that a task has.
    """
    flat = list(flatten(samples))
    episodes = [episode_of(sample) for sample in flat]
    pairs = [(sample, episode) for sample, episode in zip(flat, episodes, strict=True) if episode is not None]
    if not pairs:
        return {}
    tallies = tally(pairs)
    largest = samples_per_prompt or min(task.planned for task in tallies)
    out = episode_metrics([episode for _, episode in pairs])
    out["foreign_samples"] = float(len(flat) - len(pairs))
    out |= pass_metrics(tallies, largest)
    parts: dict[str, list[Tally]] = {}
    for task in tallies:
        parts.setdefault(f"domain/{tag(task.domain)}", []).append(task)
        if task.user_model:
            parts.setdefault(f"user/{tag(task.user_model)}", []).append(task)
    for name, chosen in parts.items():
        out |= {f"{name}/{key}": value for key, value in pass_metrics(chosen, largest).items()}
    return out


def tally(pairs: Iterable[tuple[SlimeSample, Episode]]) -> list[Tally]:
    """One `Tally` for each task, in order of appearance.

    A task is its domain, split, id, kind of agent and user simulator. Rows that agree in these are the same task, and their
    samples are counted together, wherever in the dataset they stand. An episode that failed before its task was known
    belongs to the task of the samples that came from the same data row.
    """
    pairs = list(pairs)
    known: dict[Hashable, Hashable] = {}
    for sample, episode in pairs:
        if episode.task_id:
            known.setdefault(_row(sample), _task(episode))
    found: dict[Hashable, Tally] = {}
    for sample, episode in pairs:
        key = _task(episode) if episode.task_id else known.get(_row(sample), ("row", _row(sample)))
        task = found.setdefault(key, Tally(episode.domain, episode.user_model))
        if episode.task_id:
            task.domain, task.user_model = episode.domain, episode.user_model
        task.planned += 1
        if episode.reward is not None:
            task.usable += 1
            task.successes += episode.success
    return list(found.values())


def _task(episode: Episode) -> Hashable:
    return (episode.domain, episode.task_split, episode.task_id, episode.agent_type, episode.user_model)


def _row(sample: SlimeSample) -> Hashable:
    """What all samples of one data row share, however their episodes ended."""
    row = metadata_of(sample)
    names = ("domain", "task_split", "split", "task_id", "index", "agent_type", "user_model")
    return repr(([row.get(name) for name in names], getattr(sample, "prompt", None)))
