"""miles, a fork of slime, calls `generate` with one object, which carries the abort flag that slime keeps in its module.

A function whose first parameter is named ``input`` gets ``GenerateFnInput(state, sample, sampling_params, evaluation)``; one
with slime's parameters is called without ``state`` and would never hear of an abort. Everything else is as in slime, and
its modules have the same names under ``miles``.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs, SlimeSample
    from tau2_slime.tokens.tokenizer import Tokenizer

Generate = TypeVar("Generate", bound=Callable[..., Awaitable[Any]])


class RolloutState(Protocol):
    """``GenerateState`` of slime and of miles."""

    tokenizer: Tokenizer
    """Of ``--hf-checkpoint``; with miles' ``--chat-template-path``, it has that template."""
    aborted: bool
    """True from the moment when the rollout has enough episodes."""


class GenerateFnInput(Protocol):
    """What miles calls a generate function with (``miles.rollout.base_types``)."""

    state: RolloutState
    args: SlimeArgs
    sample: SlimeSample
    sampling_params: dict[str, Any]
    evaluation: bool


state_of_this_episode: ContextVar[RolloutState | None] = ContextVar("state_of_this_episode", default=None)
"""What miles handed over with the sample that is being played. Each sample has an asyncio task of its own."""


def in_miles() -> bool:
    """True if miles has loaded its rollout code in this process, and speaks in ``GenerateFnInput``."""
    return hasattr(sys.modules.get("miles.rollout.base_types"), "GenerateFnInput")


def as_the_framework_calls_it(generate: Generate) -> Generate:
    """``generate``, or, in a process of miles, what can be called in miles' way and in slime's.

    miles imports the module of the function that its command line names, and looks at the signature.
    """
    if not in_miles():
        return generate
    types = sys.modules["miles.rollout.base_types"]

    async def generate_for_miles(input: GenerateFnInput, *rest: Any, **named: Any) -> Any:
        if rest or named:  # slime's way: another function of this process delegates to `generate`
            return await generate(input, *rest, **named)
        token = state_of_this_episode.set(input.state)
        try:
            sample = await generate(input.args, input.sample, input.sampling_params, input.evaluation)
        finally:
            state_of_this_episode.reset(token)
        return types.GenerateFnOutput(samples=sample)

    functools.update_wrapper(generate_for_miles, generate)
    del generate_for_miles.__wrapped__  # type: ignore[attr-defined]  # its signature would be taken for this one's
    return cast(Generate, generate_for_miles)
