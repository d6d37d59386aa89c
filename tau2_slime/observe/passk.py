"""pass@k and pass^k over tasks whose number of usable samples may differ.

pass@k is the chance that at least one of k samples of a task succeeds, pass^k that all of them do. Both are estimated
without bias from the n_i usable samples of task i, c_i of them successes, and averaged over the tasks with n_i >= k.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Tally:
    """The samples of one task with one user simulator."""

    domain: str
    user_model: str
    """Empty in solo episodes."""
    planned: int = 0
    """Samples that were to be played, excluded ones included."""
    usable: int = 0
    """n_i: samples that say something about the policy."""
    successes: int = 0
    """c_i: those of the usable samples that earned τ²'s full reward."""


def pass_at(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the share of k-subsets of the n samples that hold at least one of the c successes.

    >>> pass_at(4, 2, 2)  # of the six pairs only one holds no success
    0.8333333333333334

    Raises:
        ValueError: unless 0 <= c <= n and 1 <= k <= n.
    """
    _check(n, c, k)
    return (math.comb(n, k) - math.comb(n - c, k)) / math.comb(n, k)


def pass_hat(n: int, c: int, k: int) -> float:
    """C(c, k) / C(n, k): the share of k-subsets of the n samples that hold successes only. Raises as `pass_at` does."""
    _check(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


def ks_up_to(largest: int) -> list[int]:
    """1..largest; above 16 the powers of two and ``largest``, so that a dataset with 64 samples a task stays readable."""
    if largest <= 16:
        return list(range(1, largest + 1))
    return sorted({2**i for i in range(largest.bit_length())} | {largest})


def pass_metrics(tallies: Sequence[Tally], largest: int) -> dict[str, float]:
    """``pass@k``, ``pass_hat_k`` and ``tasks_below_k`` for k up to ``largest``, and ``tasks``.

    ``tasks_below_k`` counts the tasks that a k leaves out, because exclusions left them fewer than k samples. A k that
    leaves out every task has no estimate. ``pass@1_stderr`` is the standard error of pass@1 over tasks (two at least).
    """
    out: dict[str, float] = {"tasks": float(len(tallies))}
    for k in ks_up_to(largest):
        enough = [task for task in tallies if task.usable >= k]
        out[f"tasks_below_{k}"] = float(len(tallies) - len(enough))
        if not enough:
            continue
        out[f"pass@{k}"] = statistics.fmean(pass_at(t.usable, t.successes, k) for t in enough)
        out[f"pass_hat_{k}"] = statistics.fmean(pass_hat(t.usable, t.successes, k) for t in enough)
    rates = [task.successes / task.usable for task in tallies if task.usable]
    if len(rates) > 1:
        out["pass@1_stderr"] = statistics.stdev(rates) / math.sqrt(len(rates))
    return out


def _check(n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"{c} successes of {n} samples, k={k}: 0 <= c <= n and 1 <= k <= n must hold")
