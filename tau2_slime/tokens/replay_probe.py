"""Ask a server, once, whether it sends what a training run wants to replay, before hundreds of episodes find out.

The honest way to know is to ask for one token: a router says nothing of the fields that it drops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tau2_slime.errors import EngineError, ReplayUnavailable, TokenTruthError
from tau2_slime.runtime.threads import PerLoop
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.replay import ReplayRequest, ReplaySpec

logger = logging.getLogger(__name__)

PROBE_TIMEOUT = 60.0
# Whoever asks again sooner gets the last answer: neither a wrong router nor a dead one is asked by every episode.
_REMEMBERED = 60.0

_locks: PerLoop[asyncio.Lock] = PerLoop(asyncio.Lock)
_proved: set[tuple[str, ReplaySpec]] = set()
_last_answers: dict[tuple[str, ReplaySpec], tuple[float, str | None]] = {}


async def require(url: str, input_ids: Sequence[int], sampling_params: Mapping[str, Any], spec: ReplaySpec) -> None:
    """Return if the server at ``url`` sends what ``spec`` wants, or cannot be asked now; one token, once a process.

    ``sampling_params``: those of the run, with what slime puts into ``custom_params``.

    Raises:
        ReplayUnavailable: it answers without, or with what does not fit.
    """
    key = (url, spec)
    if not spec.wanted or key in _proved:
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
        except EngineError as error:  # the episode's own calls meet it, with patience, and blame it on the right thing
            logger.warning("tau2_slime: whether %s sends what is to be replayed is not known yet: %s", url, error)
            _last_answers[key] = (time.monotonic(), None)
        else:
            _proved.add(key)


async def probe(url: str, input_ids: Sequence[int], sampling_params: Mapping[str, Any], spec: ReplaySpec) -> None:
    """One token with everything that ``spec`` wants; raises what `SglangEngine.generate` raises."""
    params = {**sampling_params, "max_new_tokens": 1}
    await SglangEngine(url, timeout=PROBE_TIMEOUT, retries=0).generate(
        list(input_ids), params, routing_key="tau2-slime-probe", replay=ReplayRequest(spec)
    )
