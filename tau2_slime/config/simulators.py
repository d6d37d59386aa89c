"""The simulators of a run, and which of them a sample talks to: a function of the sample alone, the same after a resume."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tau2_slime.config import secret_names

Rotation = Literal["within_group", "across_groups", "weighted"]
Failover = Literal["wait", "next"]

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: its multiples fill the circle so evenly that every short run of samples is near the weights."""


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Simulator(BaseModel):
    """One user simulator of the pool. What is left out is NOT taken from the user_* keys, `args` and limits excepted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """What samples, metrics and other settings call it; the model's name if left out."""
    model: str = Field(min_length=1)
    """Any litellm model, or the served name at an endpoint of one's own."""
    base_url: str | None = None
    """Its endpoint; ``sglang:NAME`` is the model of that name in slime's own --sglang-config."""
    api_key_var: str | None = None
    """The NAME of the variable that holds its key."""
    args: dict[str, Any] | None = None
    """Further litellm arguments; unset: user_args."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the samples with ``user_rotation: weighted``."""
    concurrency: int | None = Field(default=None, ge=1)
    """Calls in flight per event loop; unset: user_concurrency."""
    price: Price | None = None
    """Unset: what litellm's price table says; nothing for a model that slime serves."""

    def __init__(self, **values: Any) -> None:
        if not values.get("name"):
            values["name"] = values.get("model") or ""
        super().__init__(**values)

    @field_validator("base_url", "api_key_var", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("api_key_var")
    @classmethod
    def _a_name_not_a_key(cls, value: str | None) -> str | None:
        return secret_names.name_of_a_variable(value)

    @field_validator("base_url")
    @classmethod
    def _no_key_in_the_address(cls, value: str | None) -> str | None:
        return secret_names.address(value, "api_key_var")

    @field_validator("args")
    @classmethod
    def _no_key_among_the_arguments(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else secret_names.arguments(value, "api_key_var")


def check_pool(pool: Sequence[Simulator], rotation: Rotation) -> None:
    """Raises ValueError: two simulators of one name, or weights that nobody would look at."""
    names = [simulator.name for simulator in pool]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the name {twice[0]!r} is given twice; the same model twice needs two names")
    if rotation != "weighted" and len({simulator.weight for simulator in pool}) > 1:
        raise ValueError("weights differ, but only user_rotation: weighted looks at them")


def choose(weights: Sequence[float], rotation: Rotation, index: int | None, group_index: int | None) -> int:
    """The position of the simulator for a sample.

    ``within_group``: by the sample's index, so the samples of a group meet all of them in turn. ``across_groups``: by the
    group's index, so a group shares one. ``weighted``: by the sample's index, in proportion to ``weights``.
    """
    if rotation == "across_groups":
        return (group_index or 0) % len(weights)
    if rotation == "within_group":
        return (index or 0) % len(weights)
    sums = list(itertools.accumulate(weights))
    point = ((index or 0) * _GOLDEN % 2**64) / 2**64 * sums[-1]
    return min(bisect.bisect_right(sums, point), len(weights) - 1)
