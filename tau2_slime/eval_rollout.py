"""slime's own evaluation, for use beside its fully-async rollouts: ``--eval-function-path`` names `generate_rollout`.

slime limits the episodes under way by one semaphore of the process. Fully-async rollouts wait for it in their worker's event
loop and evaluation in another one, but an `asyncio.Semaphore` belongs to the first loop that had to wait: evaluation then
ends the job with "is bound to a different event loop". Here each loop gets a semaphore of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tau2_slime.runtime.loops import PerLoop
from tau2_slime.slime_adapter.compat import episode_limit, rollout_code

if TYPE_CHECKING:
    from tau2_slime.slime_adapter.types import SlimeArgs


class LoopSemaphore:
    """``async with``: at most ``permits`` holders in each event loop."""

    def __init__(self, permits: int) -> None:
        self._own = PerLoop(lambda: asyncio.Semaphore(permits))

    async def __aenter__(self) -> None:
        await self._own.get().acquire()

    async def __aexit__(self, *_: object) -> None:
        self._own.get().release()


def generate_rollout(args: SlimeArgs, rollout_id: int, data_source: object, evaluation: bool = False) -> object:
    """What ``slime.rollout.sglang_rollout.generate_rollout`` returns for the same arguments.

    Episodes that hold or await slime's own semaphore at the first call keep it. Until they end, up to twice as many episodes
    are under way.
    """
    slime = rollout_code()
    state = slime.GenerateState(args)
    if not isinstance(state.semaphore, LoopSemaphore):
        state.semaphore = LoopSemaphore(episode_limit(args))
    return slime.generate_rollout(args, rollout_id, data_source, evaluation=evaluation)
