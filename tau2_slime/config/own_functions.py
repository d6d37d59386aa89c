"""Functions of the user's own code that a setting names by dotted path: looked up once per process, with the settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.dotted_path import load_object


@functools.cache
def _look_up(path: str, what: str) -> Callable[..., Any] | str:
    """The function, or the text of the error: a module whose import fails is not imported again for every sample."""
    try:
        found = load_object(path, what=what)
    except ConfigError as error:
        return str(error)
    return (
        found if callable(found) else f"{what} {path!r} is not a function but {type(found).__name__}: name a function"
    )


def own_function(path: str, what: str) -> Callable[..., Any]:
    """The function that ``path`` names.

    >>> own_function("math.sqrt", "metric")(9)
    3.0

    Args:
        path: for example ``my.module.my_metric``.
        what: what the setting is for, for the message.

    Raises:
        ConfigError: no such function exists.
    """
    found = _look_up(path, what)
    if isinstance(found, str):
        raise ConfigError(found)
    return found


def _checked(what: str) -> AfterValidator:
    def check(path: str) -> str:
        own_function(path, what)
        return path

    return AfterValidator(check)


MetricPath = Annotated[str, _checked("metric")]
"""Dotted path of an `episode.own_functions.Metric`."""
RewardPartPath = Annotated[str, _checked("reward part")]
"""Dotted path of an `episode.own_functions.RewardPart`."""
