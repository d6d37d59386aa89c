"""slime's own evaluation, for use beside its fully-async rollouts: ``--eval-function-path`` names `generate_rollout`.

slime holds every episode under one semaphore of the process. Fully-async rollouts wait for it in their worker's event loop
and evaluation in another one, and an `asyncio.Semaphore` belongs to the first loop that had to wait: evaluation then ends
the job with "is bound to a different event loop". Here each loop gets a semaphore of its own.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tau2_slime.runtime.threads import PerLoop
from tau2_slime.slime_adapter.compat import rollout_code


class LoopSemaphore:
    """``async with``: at most ``permits`` holders in each event loop."""

    def __init__(self, permits: int) -> None:
        self._own = PerLoop(lambda: asyncio.Semaphore(permits))

    async def __aenter__(self) -> None:
        await self._own.get().acquire()

    async def __aexit__(self, *_: object) -> None:
        self._own.get().release()


def generate_rollout(args: Any, rollout_id: int, data_source: Any, evaluation: bool = False) -> Any:
    """What ``slime.rollout.sglang_rollout.generate_rollout`` returns.

    Episodes that already hold or await slime's semaphore keep it; so for as long as the first evaluation lasts, up to twice
    as many episodes are under way.
    """
    slime = rollout_code()
    state = slime.GenerateState(args)
    if not isinstance(state.semaphore, LoopSemaphore):
        engines = max(1, args.rollout_num_gpus // args.rollout_num_gpus_per_engine)
        state.semaphore = LoopSemaphore(args.sglang_server_concurrency * engines)
    return slime.generate_rollout(args, rollout_id, data_source, evaluation=evaluation)
