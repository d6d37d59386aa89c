"""Ask a server once whether it sends what a training run wants to replay, before hundreds of episodes find out.

A router says nothing about the fields that it drops, so the question is one generate call that samples one token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_slime.errors import EngineError, ReplayUnavailable, TokenTruthError
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.replay import NOTHING, ReplayRequest, ReplaySpec

logger = logging.getLogger(__name__)

PROBE_TIMEOUT = 60.0
"""Seconds."""
_REMEMBERED = 60.0
"""Seconds for which a server that did not do well is not asked again, because every episode of the run asks."""

_locks: PerLoop[asyncio.Lock] = PerLoop(asyncio.Lock)
_proved: set[tuple[str, ReplaySpec]] = set()
"""Servers that sent what was wanted."""
_last_answers: dict[tuple[str, ReplaySpec], tuple[float, str | None]] = {}
"""The others: when they were asked, and why they cannot be used (None: they could not be reached)."""


async def require(url: str, input_ids: Sequence[int], sampling_params: Mapping[str, Any], spec: ReplaySpec) -> None:
    """Return if the server sends what ``spec`` wants, or cannot be asked now.

    It is asked until it has sent it once in this process.

    Args:
        url: ``http://host:port`` of a router or of one worker.
        input_ids: any ids that the model knows.
        sampling_params: those of the run, with what slime puts into ``custom_params``.
        spec: what the trainer replays.

    Raises:
        ReplayUnavailable: the answer lacks it, or holds something that does not fit.
    """
    key = (url, spec)
    if spec == NOTHING or key in _proved:
        return
    async with _locks.get():
        if key in _proved:
            return
        when, refusal = _last_answers.get(key, (0.0, None))
        if when and time.monotonic() - when < _REMEMBERED:
            if refusal is not None:
                raise ReplayUnavailable(refusal)
            return
        try:
            await probe(url, input_ids, sampling_params, spec)
        except (ReplayUnavailable, TokenTruthError) as error:
            _last_answers[key] = (time.monotonic(), str(error))
            raise ReplayUnavailable(str(error)) from error
        except EngineError as error:  # the episode's own calls meet it too; they retry, and blame the right part
            logger.warning("tau2_slime: whether %s sends what is to be replayed is not known yet: %s", url, error)
            _last_answers[key] = (time.monotonic(), None)
        else:
            _proved.add(key)


async def probe(url: str, input_ids: Sequence[int], sampling_params: Mapping[str, Any], spec: ReplaySpec) -> None:
    """Sample one token with everything that ``spec`` wants; raises what `SglangEngine.generate` raises."""
    params = {**sampling_params, "max_new_tokens": 1}
    await SglangEngine(url, timeout=PROBE_TIMEOUT, retries=0).generate(
        list(input_ids), params, routing_key="tau2-slime-probe", replay=ReplayRequest(spec)
    )
