"""How old the weights were that sampled what is trained on, counted in weight updates.

Each sampled segment of a sample names its weights (`tokens.ledger`), and slime numbers them: "1", "2", ... The lag of a
token is the newest number that any answer has named to this process, minus its own. What the loss mask leaves out has no
lag.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import first_time
from tau2_slime.slime_adapter.sample import metadata_of

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeSample
    from tau2_slime.tokens.ledger import Segment

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_newest: int | None = None


def saw(versions: Iterable[object]) -> None:
    """Remember the newest of these weight versions; those that are not numbers (sglang's "default") say nothing."""
    global _newest
    known = [number for number in map(_number, versions) if number is not None]
    if known:
        with _lock:
            _newest = max(known if _newest is None else (_newest, *known))


def newest() -> int | None:
    """The newest weights that this process knows of; None if no answer has named a number."""
    return _newest


def forget() -> None:
    """As if no answer had come, for a test."""
    global _newest
    _newest = None


def lags(sample: SlimeSample) -> Counter[int]:
    """Lag -> trained tokens of ``sample`` that have it. Tokens whose weights have no number are left out."""
    out: Counter[int] = Counter()
    latest = newest()
    if latest is None:
        return out
    for number, tokens in _trained(sample):
        out[max(0, latest - number)] += tokens
    return out


def lag(samples: Iterable[SlimeSample]) -> int:
    """The greatest lag of any trained token of ``samples``, such as a group; 0 if none has one."""
    return max((most for most in (max(lags(sample), default=0) for sample in samples)), default=0)


def lag_of_segments(segments: Iterable[Segment]) -> int:
    """The greatest lag of any token in ``segments``, of an unfinished episode, that can still be trained."""
    trained = [segment.weight_version for segment in segments if segment.kind == "sampled" and not segment.masked]
    latest, known = newest(), [number for number in map(_number, trained) if number is not None]
    return max(0, latest - min(known)) if known and latest is not None else 0


def _trained(sample: SlimeSample) -> Iterable[tuple[int, int]]:
    """(number of the weights, trained tokens) of each sampled segment."""
    tau2 = metadata_of(sample).get("tau2")
    segments: Any = tau2.get("segments") if isinstance(tau2, Mapping) else None
    if not segments or sample.remove_sample:
        return
    mask = sample.loss_mask or []
    prompt = len(sample.tokens) - sample.response_length
    for segment in segments:
        number = _number(segment.get("weight_version"))
        tokens = sum(mask[segment["start"] - prompt : segment["stop"] - prompt])
        if number is not None and segment["kind"] == "sampled" and tokens:
            yield number, tokens


def _number(version: object) -> int | None:
    text = str(version)
    return int(text) if text.isascii() and text.isdecimal() else None


# ---- metrics -----------------------------------------------------------------------------------------------------------

MOST = 8
"""Lags from here on share one bar of the histogram."""


def lag_metrics(samples: Iterable[SlimeSample]) -> dict[str, float]:
    """Mean, maximum and histogram of the lag over the trained tokens of ``samples``; empty if none has one."""
    total: Counter[int] = Counter()
    for sample in samples:
        total += lags(sample)
    tokens = total.total()
    if not tokens:
        return {}
    bars: Counter[str] = Counter()
    for behind, count in total.items():
        bars[str(behind) if behind < MOST else f"{MOST}_or_more"] += count
    return {
        "weight_lag/mean": sum(behind * count for behind, count in total.items()) / tokens,
        "weight_lag/max": float(max(total)),
        **{f"weight_lag/share/{bar}": bars[bar] / tokens for bar in (*map(str, range(MOST)), f"{MOST}_or_more")},
    }


def is_stale(group: Iterable[SlimeSample], bound: int | None) -> bool:
    """True if a trained token of ``group`` is more than ``bound`` updates behind; the log says so. None: no bound."""
    if bound is None or (behind := lag(group)) <= bound:
        return False
    if first_time("groups beyond max_weight_lag"):
        logger.warning(
            "a group is not trained on: its oldest trained tokens are %d weight updates old, max_weight_lag is %d",
            behind,
            bound,
        )
    return True


def stale_metrics(groups: Collection[Iterable[SlimeSample]], bound: int | None) -> dict[str, float]:
    """The share of groups that the bound takes out of training; empty without a bound."""
    return {} if bound is None else {"groups_stale": sum(lag(group) > bound for group in groups) / len(groups)}


def evaluation_weights(dataset: str, rollout_id: int, samples: Iterable[SlimeSample]) -> dict[str, float]:
    """Which weights sampled an evaluation.

    slime's drivers update none while they evaluate. If several sampled all the same, the log says so.
    """
    found = {str(version) for sample in samples for version in getattr(sample, "weight_versions", None) or ()}
    numbers = sorted(number for number in map(_number, found) if number is not None)
    if len(found) > 1 and first_time(f"evaluation {dataset} with several weights"):
        logger.warning(
            "evaluation %s of rollout %d was sampled with the weight versions %s: its scores belong to no single checkpoint",
            *(dataset, rollout_id, ", ".join([*map(str, numbers), *sorted(v for v in found if _number(v) is None)])),
        )
    out = {"weight_versions/distinct": float(len(found))} if found else {}
    if numbers:
        out |= {"weight_versions/oldest": float(numbers[0]), "weight_versions/newest": float(numbers[-1])}
    return out
