"""How often the 95 % intervals of an evaluation hold the true score, and how wide they are.

    python benchmarks/interval_coverage.py [--runs 2000] [--seed 1]

Each run draws tasks whose chances of success come from one of eight Beta distributions: U-shaped (most tasks are always or
never solved), flat, bell-shaped, and skewed to hard or easy tasks. With several domains each has another distribution. A
line averages over the eight; the lowest and the highest of them follow in parentheses. Methods: "score" is
`intervals.score_interval`, "difference" is `intervals.difference_interval`; beside them Student's t (Welch's over several
domains) and the percentile bootstrap over tasks, widened to Student's t, which earlier versions used.

"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from tau2_slime.evaluation.statistics.intervals import Stratum, difference_interval, score_interval

Array = NDArray[np.float64]

SHAPES = ((0.3, 0.3), (0.5, 0.5), (1, 1), (2, 2), (5, 5), (0.5, 1.5), (1, 3), (3, 1))
DOMAINS = ((5,), (8,), (10,), (20,), (50,), (5, 5), (10, 10), (5, 20), (5, 5, 5), (10, 20, 40))
FAMILIES = ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2), (4, 4), (8, 4))
"""(attempts, k) of pass^k."""
RESAMPLES = 1000


def shapes_of(first: int, domains: int) -> list[tuple[float, float]]:
    """The Beta distribution of each domain; the first has shape number ``first``."""
    return [SHAPES[(first + 3 * i) % len(SHAPES)] for i in range(domains)]


def moment(a: float, b: float, k: int) -> float:
    """E[p^k] of Beta(a, b): the true pass^k."""
    return math.prod((a + i) / (a + b + i) for i in range(k))


def student(parts: Sequence[Array], least: float) -> tuple[Array, Array]:
    """Limits of the mean over domains for arrays (runs, n_tasks); values are at least ``least`` and at most 1."""
    total = sum(part.shape[1] for part in parts)
    weights = [part.shape[1] / total for part in parts]
    mean = sum(w * part.mean(axis=1) for w, part in zip(weights, parts, strict=True))
    variances = [w**2 * part.var(axis=1, ddof=1) / part.shape[1] for w, part in zip(weights, parts, strict=True)]
    uncertain = sum(v**2 / (part.shape[1] - 1) for v, part in zip(variances, parts, strict=True))
    variance = sum(variances)
    degrees = np.where(uncertain > 0, variance**2 / np.maximum(uncertain, 1e-300), 1e9)
    half = stdtrit(degrees, 0.975) * np.sqrt(variance)
    return np.maximum(least, mean - half), np.minimum(1, mean + half)


def bootstrap(parts: Sequence[Array], least: float) -> tuple[Array, Array]:
    """The same by resampling tasks within domains. Where all tasks score the same it has the exact binomial bound."""
    runs, total = len(parts[0]), sum(part.shape[1] for part in parts)
    tail = ndtr(-stdtrit(total - 1, 0.975) * math.sqrt(total / (total - 1)))
    rng = np.random.default_rng(20240601)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / total for n in (part.shape[1] for part in parts)]
    low, high = np.empty(runs), np.empty(runs)
    for at in range(0, runs, 500):
        means = sum(draw @ part[at : at + 500].T for draw, part in zip(drawn, parts, strict=True))
        low[at : at + 500], high[at : at + 500] = np.quantile(means, [tail, 1 - tail], axis=0)
    mean = sum(part.sum(axis=1) for part in parts) / total
    alike = np.all([np.ptp(part, axis=1) < 1e-12 for part in parts], axis=0)
    width = 1 - 0.025 ** (1 / total)
    return np.where(alike, np.maximum(least, mean - width), low), np.where(alike, np.minimum(1, mean + width), high)


def package(parts: Sequence[Array], least: float, values: int = 1) -> tuple[Array, Array]:
    """The package's own: `score_interval`, or `difference_interval` for values down to -1."""
    interval = score_interval if least == 0 else difference_interval
    counts = [np.full(part.shape[1], float(values)) for part in parts]
    limits = [
        interval([Stratum(part[run] * values, count) for part, count in zip(parts, counts, strict=True)])
        for run in range(len(parts[0]))
    ]
    low, high = np.array(limits).T
    return low, high


def scores(
    rng: np.random.Generator, runs: int, first: int, sizes: Sequence[int], attempts: int, k: int
) -> tuple[list[Array], float]:
    """pass^k of every task, arrays (runs, n_tasks), and the true score."""
    value = np.array([math.comb(c, k) / math.comb(attempts, k) for c in range(attempts + 1)])
    shapes = shapes_of(first, len(sizes))
    parts = [value[rng.binomial(attempts, rng.beta(a, b, (runs, n)))] for n, (a, b) in zip(sizes, shapes, strict=True)]
    truth = sum(n * moment(a, b, k) for n, (a, b) in zip(sizes, shapes, strict=True)) / sum(sizes)
    return parts, truth


def several_users(
    rng: np.random.Generator, runs: int, first: int, sizes: Sequence[int], users: int
) -> tuple[list[Array], float]:
    """pass^1 of tasks that several users meet, four attempts each: a task's chance differs from user to user."""
    shapes, parts = shapes_of(first, len(sizes)), []
    for n, (a, b) in zip(sizes, shapes, strict=True):
        chance = rng.beta(a, b, (runs, n, 1)).clip(1e-6, 1 - 1e-6)
        with_user = rng.beta(4 * chance, 4 * (1 - chance), (runs, n, users))
        parts.append(rng.binomial(4, with_user).mean(axis=2) / 4)
    truth = sum(n * a / (a + b) for n, (a, b) in zip(sizes, shapes, strict=True)) / sum(sizes)
    return parts, truth


def differences(
    rng: np.random.Generator, runs: int, first: int, sizes: Sequence[int], attempts: int, gain: float
) -> tuple[list[Array], float]:
    """Second policy minus first on the same tasks; it solves the share ``gain`` of what the first one would fail."""
    shapes, parts = shapes_of(first, len(sizes)), []
    for n, (a, b) in zip(sizes, shapes, strict=True):
        chance = rng.beta(a, b, (runs, n))
        better = chance + (1 - chance) * gain
        parts.append((rng.binomial(attempts, better) - rng.binomial(attempts, chance)) / attempts)
    truth = sum(n * gain * b / (a + b) for n, (a, b) in zip(sizes, shapes, strict=True)) / sum(sizes)
    return parts, truth


def line(cases: Iterator[tuple[list[Array], float]], least: float, values: int = 1) -> str:
    """Coverage in percent, its extremes over the shapes, and the mean width, of the three methods."""
    covered: list[list[float]] = []
    widths: list[list[float]] = []
    for parts, truth in cases:
        limits = [package(parts, least, values), student(parts, least), bootstrap(parts, least)]
        covered.append([100 * float(np.mean((low <= truth) & (truth <= high))) for low, high in limits])
        widths.append([float(np.mean(high - low)) for low, high in limits])
    rates, width = np.array(covered), np.array(widths).mean(axis=0)
    cells = [
        f"{mean:5.1f} ({low:4.1f}-{high:5.1f}) {w:.2f}"
        for mean, low, high, w in zip(rates.mean(axis=0), rates.min(axis=0), rates.max(axis=0), width, strict=True)
    ]
    return "   ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="runs of each distribution")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng, runs, every = np.random.default_rng(options.seed), options.runs, range(len(SHAPES))
    columns = "   ".join(f"{name:24}" for name in ("score", "Student's t", "bootstrap"))
    for attempts, k in FAMILIES:
        print(f"\npass^{k} of {attempts} attempts\n{'tasks':12}{columns}")
        for sizes in DOMAINS:
            cells = line((scores(rng, runs, first, sizes, attempts, k) for first in every), least=0.0)
            print(f"{'+'.join(map(str, sizes)):12}{cells}", flush=True)
    print(f"\npass^1 of 3 users x 4 attempts\n{'tasks':12}{columns}")
    for sizes in DOMAINS:
        cells = line((several_users(rng, runs, first, sizes, 3) for first in every), least=0.0, values=3)
        print(f"{'+'.join(map(str, sizes)):12}{cells}", flush=True)
    for attempts, gain in ((4, 0.0), (4, 0.2), (8, 0.4)):
        columns = columns.replace("score     ", "difference")
        print(f"\nchange of pass^1, {attempts} attempts, {gain:.0%} of the failures solved\n{'tasks':12}{columns}")
        for sizes in DOMAINS:
            cells = line((differences(rng, runs, first, sizes, attempts, gain) for first in every), least=-1.0)
            print(f"{'+'.join(map(str, sizes)):12}{cells}", flush=True)


if __name__ == "__main__":
    main()
