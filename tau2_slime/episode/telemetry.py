"""`result.telemetry` over many episodes: how often each tool was called and answered, and the means of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


def telemetry_metrics(episodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Over episodes: ``tool/<name>/calls`` (sum) and ``/accuracy`` (share answered without an error), ``gold/diverged``
    (share of the episodes with gold actions that left one out), and the mean of everything else.

    Tools that gave nothing but errors are one, ``tool/never_answered``: a model can invent names without end.
    """
    known = list(episodes)
    sums: dict[str, float] = {}
    counts: Counter[str] = Counter()
    for episode in known:
        for name, value in episode.items():
            sums[name] = sums.get(name, 0.0) + value
            counts[name] += 1
    out = {name: value / counts[name] for name, value in sums.items() if not name.startswith("tool/")}
    useless = 0.0
    for name, calls in sums.items():
        if not (name.startswith("tool/") and name.endswith("/calls")):
            continue
        tool = name.removesuffix("/calls")
        errors = sums.get(f"{tool}/errors", 0.0)
        if errors >= calls:
            useless += calls
            continue
        out[name], out[f"{tool}/accuracy"] = calls, 1 - errors / calls
    if useless:
        out["tool/never_answered/calls"] = useless
    if counts["gold/done"]:
        out["gold/diverged"] = counts["gold/first_divergence"] / counts["gold/done"]
    return dict(sorted(out.items()))
