"""A metric or a reward part of one's own: a function of the finished episode, named in the settings by its dotted path.

    tau2:
      metrics: [my.module.my_metric]
      reward_shaping: {partial_credit: 0.3, parts: {my.module.my_part: 1.0}}

The functions are called once for each episode that counts (COMPLETED or TRUNCATED), in a thread beside the event loop,
possibly for two episodes at the same time. They must not change the result, and should take milliseconds: there are two such
threads, and they have other work to do. What a function raises is logged once and costs its number, never the episode.
`examples/custom_metric.py` and `examples/custom_reward.py` show one of each.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from tau2_slime.config.own_functions import own_function
from tau2_slime.errors import first_time
from tau2_slime.runtime import tracebacks

if TYPE_CHECKING:
    from tau2_slime.episode.result import InteractionResult

logger = logging.getLogger(__name__)

T = TypeVar("T")

SLOW = 1.0
"""Seconds above which the log says that a function is slow."""


class Metric(Protocol):
    """Numbers of one episode, by name.

    Each number is shown as ``custom/<name>`` in the sample's telemetry, and its mean over the episodes that have it in the
    training and evaluation metrics, the report and the inspector. The names should be few and the same in every run.
    """

    def __call__(self, result: InteractionResult, /) -> Mapping[str, float]: ...


class RewardPart(Protocol):
    """How well an episode did in one respect: 0.0 to 1.0, or None if that respect does not apply to it."""

    def __call__(self, result: InteractionResult, /) -> float | None: ...


def custom_metrics(result: InteractionResult, paths: Iterable[str]) -> dict[str, float]:
    """The numbers of the metrics in ``paths``; a value that is not a finite number is left out.

    Args:
        result: a finished episode.
        paths: dotted paths of `Metric` functions, as in ``tau2: {metrics: [...]}``.
    """
    out: dict[str, float] = {}
    for path in paths:
        found = _call(path, "metric", result, _numbers)
        out.update(found or {})
    return out


def reward_parts(result: InteractionResult, paths: Iterable[str]) -> dict[str, float]:
    """The values, 0.0 to 1.0, of the reward parts in ``paths``; one that does not apply or that failed is left out.

    Args:
        result: a finished episode.
        paths: dotted paths of `RewardPart` functions, as in ``tau2: {reward_shaping: {parts: {...}}}``.
    """
    values = {path: _call(path, "reward part", result, _share) for path in paths}
    return {path: value for path, value in values.items() if value is not None}


def _call(path: str, what: str, result: InteractionResult, read: Callable[[object], T]) -> T | None:
    """What ``read`` makes of the function's answer; None if either raises."""
    begin = time.perf_counter()
    try:
        return read(own_function(path, what)(result))
    except (Exception, SystemExit) as error:  # the user's code: whatever it raises, the episode is whole
        if first_time(f"{what} {path}", repr(error)):
            tracebacks.log(logger, f"tau2_slime: {what} {path} failed on {result.domain}/{result.task_id}", error)
        return None
    finally:
        seconds = time.perf_counter() - begin
        if seconds > SLOW and first_time(f"{what} {path} is slow"):
            logger.warning("tau2_slime: %s %s took %.1f seconds for one episode", what, path, seconds)


def _numbers(answer: object) -> dict[str, float]:
    if not isinstance(answer, Mapping):
        raise TypeError(f"it must return a mapping of names to numbers, not {type(answer).__name__}")
    numbers = {str(name): float(value) for name, value in answer.items()}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _share(answer: object) -> float | None:
    if answer is None:
        return None
    value = float(answer)  # type: ignore[arg-type]  # raises TypeError for what is not a number
    if not 0 <= value <= 1:
        raise ValueError(f"it must return a number from 0 to 1, or None, not {value}")
    return value
