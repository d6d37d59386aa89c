"""How often the 95 % intervals of an evaluation hold the true score, and how wide they are.

    python benchmarks/interval_coverage.py [--runs 2000] [--seed 1]

Each run draws tasks whose chances of success come from one of eight Beta distributions: U-shaped (most tasks are always or
never solved), flat, bell-shaped, and skewed to hard or easy tasks. With several domains each has another distribution. A
line averages over the eight; the lowest and the highest of them follow in parentheses. Methods: "score" is
`intervals.score_interval`, "difference" is `intervals.difference_interval`; beside them Student's t (Welch's over several
domains) and the percentile bootstrap over tasks, widened to Student's t, which earlier versions used. A cell is the
coverage in percent and the mean width. With ``--runs 2000 --seed 1`` (standard errors: one coverage 0.5, an average 0.2):

    pass^1 of 1 attempts
    tasks       score                      Student's t                bootstrap
    5            99.3 (97.9-100.0) 0.61    87.1 (75.8- 94.1) 0.79    99.9 (99.7-100.0) 0.87
    8            94.8 (92.8- 97.4) 0.53    92.0 (89.5- 93.8) 0.69    98.9 (98.2- 99.7) 0.69
    10           97.9 (97.3- 98.6) 0.49    96.3 (93.3- 97.9) 0.63    98.3 (97.3- 99.5) 0.63
    20           95.0 (92.8- 97.2) 0.38    93.4 (88.1- 97.2) 0.44    96.7 (96.0- 97.8) 0.43
    50           93.8 (92.2- 95.2) 0.25    93.5 (92.2- 94.6) 0.27    95.2 (93.5- 96.4) 0.27
    5+5          97.1 (96.5- 98.3) 0.48    98.1 (97.6- 98.3) 0.67    92.2 (90.0- 96.5) 0.58
    10+10        94.5 (93.5- 95.8) 0.37    95.6 (95.0- 96.2) 0.45    94.5 (93.4- 96.1) 0.42
    5+20         94.3 (93.8- 95.2) 0.33    95.6 (94.8- 96.1) 0.39    94.9 (94.0- 95.7) 0.38
    5+5+5        95.7 (95.2- 97.9) 0.41    96.6 (96.2- 97.3) 0.54    91.7 (90.8- 92.7) 0.47
    10+20+40     94.3 (93.5- 94.8) 0.21    94.8 (94.3- 95.3) 0.23    94.5 (94.1- 95.0) 0.22

    pass^1 of 4 attempts
    tasks       score                      Student's t                bootstrap
    5            96.1 (93.8- 98.4) 0.52    92.9 (90.1- 95.3) 0.68    93.8 (92.5- 95.4) 0.64
    8            95.0 (93.8- 95.9) 0.42    92.7 (89.2- 94.2) 0.52    94.8 (93.2- 96.6) 0.50
    10           95.0 (94.3- 95.8) 0.38    94.1 (91.8- 95.5) 0.46    95.0 (93.3- 96.5) 0.44
    20           94.7 (94.1- 95.9) 0.28    94.2 (93.2- 95.6) 0.30    95.4 (94.2- 96.9) 0.30
    50           95.2 (94.2- 95.5) 0.18    95.0 (94.2- 95.5) 0.19    95.2 (94.3- 96.0) 0.19
    5+5          94.6 (93.9- 95.8) 0.37    94.8 (93.8- 95.5) 0.49    93.7 (93.2- 94.8) 0.42
    10+10        94.8 (94.3- 95.5) 0.27    95.1 (94.4- 95.9) 0.31    95.3 (94.6- 96.2) 0.29
    5+20         94.6 (93.1- 95.6) 0.24    94.9 (94.2- 95.3) 0.27    95.0 (94.2- 95.5) 0.26
    5+5+5        94.1 (93.0- 95.3) 0.31    95.2 (94.3- 96.0) 0.38    92.9 (91.5- 94.0) 0.33
    10+20+40     94.7 (94.2- 95.3) 0.15    95.0 (94.6- 95.5) 0.16    94.9 (94.5- 95.9) 0.15

    pass^4 of 4 attempts
    tasks       score                      Student's t                bootstrap
    5            94.6 (85.2- 98.5) 0.58    56.8 (14.8- 91.6) 0.49    99.7 (98.5-100.0) 0.73
    8            96.1 (92.2- 98.3) 0.46    67.6 (20.8- 94.0) 0.43    99.0 (96.2-100.0) 0.55
    10           95.1 (90.5- 97.2) 0.42    71.5 (24.8- 95.2) 0.40    98.6 (94.3-100.0) 0.49
    20           95.8 (92.8- 97.8) 0.30    83.5 (45.1- 95.3) 0.30    96.9 (93.2- 99.9) 0.32
    50           94.8 (93.2- 96.9) 0.20    91.3 (77.1- 95.9) 0.20    95.8 (93.5- 99.7) 0.20
    5+5          94.0 (86.5- 96.7) 0.44    84.3 (59.7- 95.5) 0.46    96.8 (87.4- 99.6) 0.44
    10+10        95.0 (92.7- 96.7) 0.31    92.4 (83.7- 96.4) 0.33    93.8 (88.8- 99.2) 0.31
    5+20         94.7 (91.5- 96.6) 0.27    90.8 (73.2- 96.4) 0.29    94.9 (91.7- 99.5) 0.28
    5+5+5        93.5 (91.5- 95.2) 0.38    94.4 (89.8- 97.7) 0.40    94.7 (87.1- 99.2) 0.34
    10+20+40     94.0 (92.5- 95.8) 0.17    94.4 (92.8- 95.6) 0.18    94.0 (92.4- 95.4) 0.17

    pass^4 of 8 attempts
    tasks       score                      Student's t                bootstrap
    5            97.0 (95.4- 98.0) 0.49    73.3 (47.6- 91.5) 0.46    82.5 (70.7- 92.0) 0.50
    8            95.0 (89.8- 97.7) 0.38    80.8 (58.1- 92.5) 0.38    84.5 (67.8- 93.2) 0.40
    10           94.5 (88.6- 98.2) 0.34    80.6 (52.7- 94.0) 0.35    86.1 (72.4- 94.6) 0.36
    20           94.3 (92.2- 97.5) 0.24    86.8 (71.3- 94.3) 0.25    87.8 (72.2- 95.0) 0.25
    50           94.3 (92.4- 95.3) 0.15    91.1 (80.2- 95.1) 0.16    91.8 (81.5- 95.5) 0.16
    5+5          93.9 (92.2- 96.2) 0.35    87.5 (80.2- 92.7) 0.40    84.7 (75.8- 91.0) 0.34
    10+10        93.2 (90.9- 95.3) 0.24    91.3 (86.2- 94.8) 0.28    91.1 (85.2- 94.2) 0.26
    5+20         93.9 (92.5- 96.9) 0.21    90.8 (80.2- 95.2) 0.24    90.5 (80.3- 95.2) 0.23
    5+5+5        93.1 (92.2- 93.8) 0.28    91.2 (88.1- 95.0) 0.34    88.5 (83.7- 92.3) 0.28
    10+20+40     93.4 (92.1- 94.0) 0.13    94.0 (93.3- 94.7) 0.14    93.7 (93.0- 94.2) 0.14

    pass^1 of 3 users x 4 attempts
    tasks       score                      Student's t                bootstrap
    5            96.5 (94.1- 98.5) 0.50    92.5 (89.0- 94.3) 0.64    91.2 (88.8- 92.8) 0.58
    8            95.4 (94.6- 95.9) 0.39    93.6 (91.6- 95.2) 0.48    94.5 (93.0- 96.5) 0.46
    10           95.0 (94.7- 95.5) 0.35    93.9 (91.7- 95.2) 0.42    94.7 (93.1- 95.9) 0.40
    20           94.8 (93.9- 95.3) 0.25    94.4 (93.5- 95.2) 0.28    94.9 (94.2- 95.5) 0.27
    50           94.9 (94.4- 95.7) 0.16    94.8 (94.3- 95.5) 0.17    95.1 (94.3- 95.7) 0.17
    5+5          94.6 (92.8- 96.7) 0.35    94.6 (93.2- 95.5) 0.45    92.7 (91.3- 93.5) 0.39
    10+10        94.7 (93.3- 95.9) 0.25    94.9 (93.6- 95.8) 0.28    94.6 (93.5- 95.5) 0.27
    5+20         94.6 (94.3- 95.2) 0.23    94.8 (94.1- 95.5) 0.25    94.6 (93.7- 95.5) 0.24
    5+5+5        93.8 (93.2- 94.3) 0.29    94.7 (94.2- 95.2) 0.35    92.2 (91.5- 92.8) 0.30
    10+20+40     94.3 (93.7- 95.0) 0.14    94.6 (94.0- 95.2) 0.14    94.2 (93.5- 95.2) 0.14

    change of pass^1, 4 attempts, 20% of the failures solved
    tasks       difference                 Student's t                bootstrap
    5            95.5 (94.5- 97.2) 0.69    94.4 (93.0- 95.5) 0.68    93.3 (88.0- 94.8) 0.58
    8            95.5 (93.8- 96.4) 0.48    95.4 (93.8- 96.3) 0.47    93.7 (91.9- 95.3) 0.45
    10           95.6 (95.0- 96.8) 0.41    95.6 (95.0- 96.8) 0.41    95.7 (95.0- 96.4) 0.40
    20           95.2 (94.2- 96.0) 0.27    95.2 (94.2- 96.0) 0.27    95.3 (94.2- 95.9) 0.27
    50           94.9 (94.6- 95.1) 0.17    94.9 (94.6- 95.1) 0.17    94.9 (94.7- 95.2) 0.17
    5+5          95.8 (95.5- 96.2) 0.44    95.8 (95.5- 96.2) 0.44    93.4 (92.5- 94.1) 0.37
    10+10        94.8 (94.0- 95.5) 0.28    94.8 (94.0- 95.5) 0.28    94.0 (93.5- 95.2) 0.26
    5+20         95.2 (94.2- 95.7) 0.24    95.2 (94.2- 95.7) 0.24    94.5 (93.1- 95.1) 0.23
    5+5+5        95.5 (94.3- 95.9) 0.34    95.5 (94.3- 95.9) 0.34    93.1 (90.6- 94.0) 0.29
    10+20+40     94.8 (94.1- 95.9) 0.14    94.8 (94.1- 95.9) 0.14    94.4 (93.7- 95.5) 0.14
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
