"""Two runs, task by task: how they differ, and whether that is more than noise.

Only what was asked under equal conditions is compared: runs whose protocols differ are refused unless the difference is
allowed by name, and then the output says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.statistics.estimates import grouped
from tau2_slime.evaluation.statistics.intervals import FloatArray, difference_interval, standard_error, strata_of
from tau2_slime.evaluation.statistics.summary import Summary
from tau2_slime.evaluation.store.manifest import Manifest, protocol_differences
from tau2_slime.evaluation.store.protocol import DatasetProtocol
from tau2_slime.evaluation.store.unit import Unit

FLIPS = 10_000
"""Sign patterns that the permutation test tries: all of 13 tasks (2**13 = 8,192), random ones of more."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Pair:
    """One task of one dataset in both runs; both have a usable attempt."""

    first: Unit
    second: Unit

    @property
    def difference(self) -> float:
        """Change of the success rate, -1 to 1."""
        return self.second.rate - self.first.rate

    @property
    def flip(self) -> str:
        """``gained`` or ``lost`` if what most attempts do has changed; else empty."""
        before, after = self.first.rate, self.second.rate
        if before < 0.5 < after:
            return "gained"
        return "lost" if after < 0.5 < before else ""


@dataclass(frozen=True)
class Difference:
    """Second run minus first, over some tasks."""

    kind: str
    """dataset, domain, user or overall."""
    name: str
    tasks: int
    first: float
    """pass^1 of the first run over these tasks."""
    second: float
    value: float
    """Mean of the pairs' differences; its 95% interval from `low` to `high` holds 0 where the test sees noise."""
    low: float
    high: float
    stderr: float
    p: float
    """`sign_flip_p`"""

    @property
    def significant(self) -> bool:
        return self.p < SIGNIFICANT and not self.low <= 0 <= self.high

    @property
    def words(self) -> str:
        if not self.significant:
            return "within noise"
        return "better" if self.value > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    first: Manifest
    second: Manifest
    differences: list[Difference]
    """The last one is over all tasks."""
    pairs: list[Pair]
    allowed: list[str]
    """Differences of the protocol that were allowed, in words."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know, in sentences."""

    @property
    def overall(self) -> Difference:
        return self.differences[-1]


def compare(first: Summary, second: Summary, allow: Sequence[str] = ()) -> Comparison:
    """``second`` minus ``first``.

    ``allow``: fields of the protocol that may differ, by name or by the name of their part: ``user_model``,
    ``sampling.temperature``, ``sampling``; or ``all``.

    Raises:
        ConfigError: the runs have no task in common, or differ in a field that is not allowed; all of them are named.
    """
    notes = []
    names = [name for name in first.manifest["protocol"] if name in second.manifest["protocol"]]
    if not names:
        raise ConfigError(
            f"the runs have no dataset in common: {', '.join(first.manifest['protocol'])}; "
            f"and {', '.join(second.manifest['protocol'])}"
        )
    for mine, other, which in ((first, second, "first"), (second, first, "second")):
        notes += [f"the {which} run: {note}" for note in mine.notes]
        alone = [name for name in mine.manifest["protocol"] if name not in other.manifest["protocol"]]
        if alone:
            notes.append(f"only in the {which} run, left out: {', '.join(alone)}")
        if mine.overall.played < mine.overall.planned:
            notes.append(
                f"the {which} run is not complete: {mine.overall.played} of {mine.overall.planned} episodes were played"
            )
    _check_allowed_names(first.manifest, second.manifest, names, allow)
    allowed = _check_protocols(first.manifest, second.manifest, names, allow)
    pairs, unpaired = _pairs(first.units, second.units, names)
    for mine, other, which in ((first, second, "first"), (second, first, "second")):
        theirs = {(unit.dataset, unit.task) for unit in other.units}
        single = sum(unit.dataset in names and (unit.dataset, unit.task) not in theirs for unit in mine.units)
        if single:
            tasks = "1 task is" if single == 1 else f"{single} tasks are"
            notes.append(f"{tasks} only in the {which} run and left out")
    if not pairs:
        raise ConfigError("the runs have no task in common that both have a usable attempt of")
    if unpaired:
        notes.append(f"{unpaired} tasks have no usable attempt in one of the runs and are left out")
    if any(pair.first.n != pair.second.n for pair in pairs):
        notes.append("the runs have different numbers of usable attempts for some tasks: their rates are compared")
    found = [difference("dataset", name, group) for name, group in _by(pairs, lambda u: u.dataset).items()]
    keys: tuple[tuple[str, Callable[[Unit], str]], ...] = (
        ("domain", lambda u: u.domain),
        ("user", lambda u: u.user_model or "-"),
    )
    for kind, key in keys:
        groups = _by(pairs, key)
        if len(groups) > 1:
            found += [difference(kind, name, members) for name, members in groups.items()]
    found.append(difference("overall", "all tasks", pairs))
    return Comparison(first.manifest, second.manifest, found, pairs, allowed, notes)


def _by(pairs: Sequence[Pair], key: Callable[[Unit], str]) -> dict[str, list[Pair]]:
    """Pairs by ``key`` of their first unit, in order of appearance."""
    by_unit = {id(pair.first): pair for pair in pairs}
    groups = grouped([pair.first for pair in pairs], key)
    return {name: [by_unit[id(unit)] for unit in members] for name, members in groups.items()}


def _check_protocols(first: Manifest, second: Manifest, names: Sequence[str], allow: Sequence[str]) -> list[str]:
    """The allowed differences in words; ConfigError if there are others."""
    refused: dict[str, str] = {}
    permitted: dict[str, str] = {}
    for name in names:
        for field_name, was, now in protocol_differences(first["protocol"][name], second["protocol"][name]):
            words = f"{field_name} ({_short(was)} and {_short(now)})"
            fine = any(a == "all" or field_name == a or field_name.startswith(f"{a}.") for a in allow)
            (permitted if fine else refused).setdefault(field_name, words)
    if refused:
        raise ConfigError(
            f"these runs cannot be compared, they differ in: {'; '.join(refused.values())}. If that is what you want to "
            f"compare: {' '.join(f'--allow {field_name}' for field_name in refused)}"
        )
    return list(permitted.values())


def _dotted(part: Mapping[str, object], at: str = "") -> Iterator[str]:
    """The names of all fields, those within others too."""
    for key, value in part.items():
        yield f"{at}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{at}{key}.")


def _check_allowed_names(first: Manifest, second: Manifest, names: Sequence[str], allow: Sequence[str]) -> None:
    """Raises ConfigError for a name in ``allow`` that no protocol has a field of."""
    known = {"all", *DatasetProtocol.__annotations__}
    for name in names:
        for part in (first["protocol"][name], second["protocol"][name]):
            known |= set(_dotted(part))
    for name in allow:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--allow {name}: the protocol has no such field{hint}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _pairs(first: Sequence[Unit], second: Sequence[Unit], names: Sequence[str]) -> tuple[list[Pair], int]:
    """Tasks that both runs have in the datasets ``names``; and how many of them lack a usable attempt."""
    theirs = {(unit.dataset, unit.task): unit for unit in second}
    both = [
        (unit, theirs[unit.dataset, unit.task])
        for unit in first
        if unit.dataset in names and (unit.dataset, unit.task) in theirs
    ]
    usable = [Pair(a, b) for a, b in both if a.n and b.n]
    return usable, len(both) - len(usable)


def difference(kind: str, name: str, pairs: Sequence[Pair]) -> Difference:
    """The paired difference of pass^1 with its interval and p-value; a task that several users meet is one task."""
    strata = strata_of(
        [pair.first.domain for pair in pairs], [pair.first.task for pair in pairs], [pair.difference for pair in pairs]
    )
    low, high = difference_interval(strata)
    p = sign_flip_p(np.concatenate([stratum.sums for stratum in strata]))
    if p >= SIGNIFICANT:  # the wider of the two: an interval without 0 beside "within noise" would be two answers
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(
        kind,
        name,
        len(pairs),
        first=fmean(pair.first.rate for pair in pairs),
        second=fmean(pair.second.rate for pair in pairs),
        value=fmean(pair.difference for pair in pairs),
        low=low,
        high=high,
        stderr=standard_error(strata),
        p=p,
    )


def sign_flip_p(differences: FloatArray) -> float:
    """Two-sided p-value of "each task's difference could as well have had the other sign".

    ``differences``: shape (n_tasks,). The p-value is the share of sign patterns whose sum is at least as far from 0; it
    counts all patterns of up to 13 tasks that differ, and `FLIPS` random ones of more (the same in every call).
    """
    moved = differences[np.abs(differences) > 1e-12]
    if len(moved) < 2:
        return 1.0  # both signs of a single difference are equally far from 0
    from scipy.stats import permutation_test

    test = permutation_test(
        (moved,),
        lambda values, axis: np.round(values.sum(axis=axis), 9),  # equal sums of thirds must compare as equal
        permutation_type="samples",
        vectorized=True,
        n_resamples=FLIPS,
        random_state=len(moved),
    )
    return float(test.pvalue)
