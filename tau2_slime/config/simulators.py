"""The user simulators of a run, and which of them plays the customer of a sample.

The choice depends on nothing but the sample's own numbers, so that it stays the same when an episode is taken up again.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tau2_slime.config.secret_names import KeylessArguments, KeylessText, KeylessUrl, VariableName

Rotation = Literal["within_group", "across_groups", "weighted"]
UserStrategy = Literal["llm", "rules", "react", "verify", "reflection"]
Failover = Literal["wait", "next"]

_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: its multiples fill the circle so evenly that every short run of samples is near the weights."""


class Price(BaseModel):
    """US dollars for a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0)
    """Of the prompt, for example 0.15."""
    output: float = Field(ge=0)
    """Of the answer, for example 0.60."""


class Simulator(BaseModel):
    """One user simulator of the pool.

    Only `args`, `concurrency` and `strategy`, if left out, are taken from the user_* keys.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    """What samples, metrics and other settings call it; unset: the model's name."""
    model: KeylessText = Field(min_length=1)
    """Any litellm model, such as gpt-4o-mini, or ``openai/<served name>`` at an endpoint of your own."""
    base_url: KeylessUrl = None
    """Its endpoint, such as http://host:8000/v1; ``sglang:NAME``: the model of that name in slime's own --sglang-config."""
    api_key_var: VariableName = None
    """The NAME of the environment variable that holds its key, such as OPENAI_API_KEY."""
    args: KeylessArguments | None = None
    """Further litellm arguments, such as {temperature: 0.7}; unset: user_args."""
    weight: float = Field(default=1.0, gt=0)
    """Its share of the samples with ``user_rotation: weighted``, relative to the weights of the others."""
    concurrency: int | None = Field(default=None, ge=1)
    """Its calls in flight per event loop; unset: user_concurrency."""
    strategy: UserStrategy | None = None
    """How it comes to a message: llm, rules, react, verify, reflection; unset: user_strategy."""
    verifier: str = ""
    """The simulator of the pool, or model, that judges its drafts with verify and reflection; unset: itself."""
    price: Price | None = None
    """US dollars for a million tokens; unset: litellm's price table, and nothing for a model that slime serves."""

    @model_validator(mode="before")
    @classmethod
    def _named_after_its_model(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("name"):
            return {**values, "name": values.get("model") or ""}
        return values


def check_pool(pool: Sequence[Simulator], rotation: Rotation) -> None:
    """Nothing, if the simulators of a pool can be told apart and their weights have an effect.

    Raises:
        ValueError: two simulators have the same name, or weights differ although ``rotation`` does not use them.
    """
    names = [simulator.name for simulator in pool]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"the name {twice[0]!r} is given twice; the same model twice needs two names")
    if rotation != "weighted" and len({simulator.weight for simulator in pool}) > 1:
        raise ValueError(f"the weights differ, but user_rotation is {rotation!r}: only 'weighted' uses them")


def seed_of_attempt(seed: int, attempt: int) -> int:
    """The seed of one of several attempts at a task: with the same one, all of them would be one attempt.

    ``attempt``: counts from 0, which keeps ``seed``.
    """
    return (seed + attempt) % 2**31


def choose(weights: Sequence[float], rotation: Rotation, index: int | None, group_index: int | None) -> int:
    """The position, in ``weights``, of the simulator for a sample.

    ``within_group``: by the sample's index, so the samples of a group meet all simulators in turn. ``across_groups``: by
    the group's index, so that a group shares one. ``weighted``: by the sample's index, in proportion to ``weights``.

    >>> [choose([2, 1, 1], "weighted", index, None) for index in range(8)]
    [0, 1, 0, 2, 0, 0, 1, 0]
    """
    if rotation == "across_groups":
        return (group_index or 0) % len(weights)
    if rotation == "within_group":
        return (index or 0) % len(weights)
    sums = list(itertools.accumulate(weights))
    point = ((index or 0) * _GOLDEN % 2**64) / 2**64 * sums[-1]
    return min(bisect.bisect_right(sums, point), len(weights) - 1)
