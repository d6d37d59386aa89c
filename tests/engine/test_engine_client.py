"""`SglangEngine` against the real server, directly: how a call ends, and what happens when its server is gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable, EpisodeAborted
from tau2_slime.tokens.engine import SglangEngine
from tests.engine.cluster import CONTEXT_LENGTH, Cluster, Forge

PROMPT = [40, 41, 42, 43, 44, 45, 46, 47]
ENDLESS = {"temperature": 1.0, "max_new_tokens": 12000, "ignore_eos": True}


async def test_a_turn_that_reaches_its_limit(cluster: Cluster) -> None:
    done = await SglangEngine(cluster.url).generate(
        PROMPT, {"temperature": 1.0, "max_new_tokens": 9, "ignore_eos": True}, routing_key="length"
    )
    assert done.finish == "length"
    assert len(done.ids) == len(done.log_probs) == 9
    assert done.meta["prompt_tokens"] == len(PROMPT)
    assert done.weight_version in {worker.name for worker in cluster.workers}


async def test_a_turn_that_stops_keeps_its_stop_token(cluster: Cluster) -> None:
    stops = list(range(0, 256, 2))
    done = await SglangEngine(cluster.url).generate(
        PROMPT, {"temperature": 1.0, "max_new_tokens": 200, "stop_token_ids": stops}, routing_key="stop"
    )
    assert done.finish == "stop"
    assert done.matched == done.ids[-1]
    assert len(done.ids) == len(done.log_probs)
    assert not set(done.ids[:-1]) & set(stops)


async def test_the_servers_abort_returns_what_was_sampled_so_far(cluster: Cluster) -> None:
    call = asyncio.create_task(SglangEngine(cluster.url).generate(PROMPT, ENDLESS, routing_key="abort"))
    await cluster.until_sampling()
    await asyncio.to_thread(cluster.abort_all)
    done = await call
    assert done.finish == "abort"
    assert 0 < len(done.ids) == len(done.log_probs) < ENDLESS["max_new_tokens"]
    # The partial turn can be continued: the server takes prompt + partial as input and goes on.
    rest = await SglangEngine(cluster.url).generate(
        PROMPT + done.ids, {"temperature": 1.0, "max_new_tokens": 4, "ignore_eos": True}, routing_key="abort"
    )
    assert len(rest.ids) == 4


async def test_an_abort_is_noticed_even_if_the_server_never_hears_of_it(cluster: Cluster) -> None:
    begin = time.monotonic()
    with pytest.raises(EpisodeAborted):
        await SglangEngine(cluster.url).generate(
            PROMPT, ENDLESS, routing_key="deaf", aborted=lambda: time.monotonic() - begin > 0.5
        )


@pytest.mark.parametrize(
    ("prompt_tokens", "max_new_tokens"), [(CONTEXT_LENGTH + 5, 1), (100, CONTEXT_LENGTH)], ids=["prompt", "prompt+new"]
)
async def test_too_long_a_conversation_is_a_limit(cluster: Cluster, prompt_tokens: int, max_new_tokens: int) -> None:
    with pytest.raises(ContextOverflow):
        await SglangEngine(cluster.url).generate(
            [50] * prompt_tokens, {"max_new_tokens": max_new_tokens}, routing_key="long"
        )


async def test_a_refused_request_is_not_tried_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0
    real_post = SglangEngine._post

    async def post(engine: SglangEngine, request: bytes, *rest: Any) -> Any:
        nonlocal tries
        tries += 1
        return await real_post(engine, request, *rest)

    monkeypatch.setattr(SglangEngine, "_post", post)
    with pytest.raises(EngineRejected):
        await SglangEngine(cluster.url).generate(PROMPT, {"temperature": -1.0}, routing_key="refused")
    assert tries == 1


async def test_a_killed_workers_call_is_answered_by_the_other_one(forge: Forge) -> None:
    with Cluster.start(forge, 2, health_check_interval_secs=1, health_failure_threshold=2) as cluster:
        engine = SglangEngine(cluster.url)
        first = await engine.generate(PROMPT, {"max_new_tokens": 1}, routing_key="sticky")
        call = asyncio.create_task(
            engine.generate(PROMPT, {"max_new_tokens": 1500, "ignore_eos": True}, routing_key="sticky")
        )
        assert first.weight_version is not None
        worker = cluster.worker_named(first.weight_version)
        await cluster.until_sampling(worker)
        worker.kill()
        done = await call
        assert done.weight_version != first.weight_version
        assert len(done.ids) == len(done.log_probs) == 1500


async def test_no_worker_at_all_is_unavailable(forge: Forge) -> None:
    with Cluster.start(forge, 0) as cluster, pytest.raises(EngineUnavailable):
        await SglangEngine(cluster.url, retries=1).generate(PROMPT, {"max_new_tokens": 1}, routing_key="nobody")
