"""pass@k and pass^k over tasks whose number of usable samples may differ.

pass@k is the chance that at least one of k samples of a task succeeds, pass^k that all of them do. Both are estimated
without bias from the n_i usable samples of task i, c_i of them successes, and averaged over the tasks with n_i >= k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Tally:
    """One task's samples."""

    domain: str
    user_model: str
    planned: int = 0
    """Samples that were to be played, the excluded ones among them."""
    usable: int = 0
    """n_i: samples that say something about the policy."""
    successes: int = 0
    """c_i of them with τ²'s full reward."""


def pass_at(n: int, c: int, k: int) -> float:
    """1 - C(n-c, k) / C(n, k): the share of k-subsets of the n samples that hold a success.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    _check(n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def pass_hat(n: int, c: int, k: int) -> float:
    """C(c, k) / C(n, k): the share of k-subsets that are all successes. Raises like `pass_at`."""
    _check(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


def ks_up_to(largest: int) -> list[int]:
    """1..largest; beyond 16 the powers of two and ``largest``, so that a dataset of 64 samples a task stays readable."""
    if largest <= 16:
        return list(range(1, largest + 1))
    return sorted({2**i for i in range(largest.bit_length()) if 2**i <= largest} | {largest})


def pass_metrics(tallies: Sequence[Tally], largest: int) -> dict[str, float]:
    """``pass@k``, ``pass_hat_k`` and ``tasks_below_k`` for k up to ``largest``, and ``tasks``.

    ``tasks_below_k`` counts the tasks that a k leaves out, because exclusions left them fewer than k samples; a k that
    leaves out every task has no estimate. ``pass@1_stderr`` is the standard error of pass@1 over tasks.
    """
    out: dict[str, float] = {"tasks": float(len(tallies))}
    for k in ks_up_to(largest):
        enough = [task for task in tallies if task.usable >= k]
        out[f"tasks_below_{k}"] = float(len(tallies) - len(enough))
        if not enough:
            continue
        out[f"pass@{k}"] = math.fsum(pass_at(t.usable, t.successes, k) for t in enough) / len(enough)
        out[f"pass_hat_{k}"] = math.fsum(pass_hat(t.usable, t.successes, k) for t in enough) / len(enough)
    rates = [task.successes / task.usable for task in tallies if task.usable]
    if len(rates) > 1:
        mean = math.fsum(rates) / len(rates)
        variance = math.fsum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)
        out["pass@1_stderr"] = math.sqrt(variance / len(rates))
    return out


def _check(n: int, c: int, k: int) -> None:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"{c} successes of {n} samples, k={k}: 0 <= c <= n and 1 <= k <= n must hold")
