"""Routed experts and kept sets from the real sglang, into the sample; and the stock router, which drops both.

Routed experts come from sglang as it is, with a tiny mixture of experts. Kept sets need slime's patch: set SLIME_DIR to a
slime checkout, and a copy of the installed sglang gets that checkout's patch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.tokens import replay_probe
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.replay import ExpertShape, ReplayRequest, ReplaySpec
from tests.engine.cluster import Cluster, Forge, Server, stop_all
from tests.engine.conftest import CACHE, LOGS
from tests.engine.test_real_sglang import TASKS

Status = StandaloneSample.Status
SHAPE = ExpertShape(layers=2, topk=2, experts=8)
PLAYED = (Status.COMPLETED, Status.TRUNCATED)
PATCHES = "docker/patch/v0.5.15.post1"


@pytest.fixture(scope="module")
def moe_worker(forge: Forge, moe_checkpoint: Path) -> Iterator[Server]:
    """A worker that is asked directly: the router would drop the request for experts."""
    worker = forge.worker("--model-path", str(moe_checkpoint), "--enable-return-routed-experts")
    try:
        worker.wait_until_healthy()
        yield worker
    finally:
        stop_all([worker])


@pytest.fixture(scope="module")
def patched_worker(python: Path, checkpoint: Path, forge: Forge) -> Iterator[Server]:
    """A worker of sglang with slime's top_p patch."""
    slime = os.environ.get("SLIME_DIR")
    patch = Path(slime or "") / PATCHES / "sglang-top_p.patch"
    if not slime or not patch.is_file():
        pytest.skip(f"no slime patch: SLIME_DIR does not name a slime checkout that has {PATCHES}/sglang-top_p.patch")
    if shutil.which("patch") is None:
        pytest.skip("the program `patch` is not installed")
    other = Forge(python, checkpoint, LOGS, name="patched", sglang=_patched(python, patch))
    worker = other.worker()
    try:
        worker.wait_until_healthy()
        yield worker
    finally:
        stop_all([worker])
        other.close()


def _patched(python: Path, patch: Path) -> Path:
    """Folder with a copy of the installed sglang that has the patch; made once per patch."""
    folder = CACHE / f"sglang-top_p-{hashlib.sha256(patch.read_bytes()).hexdigest()[:16]}"
    if not folder.is_dir():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        find = "import importlib.util as u; print(u.find_spec('sglang').submodule_search_locations[0])"
        installed = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
        shutil.copytree(installed, draft / "python" / "sglang", ignore=shutil.ignore_patterns("__pycache__"))
        with patch.open() as text:
            subprocess.run(["patch", "-p1", "--batch"], cwd=draft, stdin=text, capture_output=True, check=True)
        draft.rename(folder)
    return folder / "python"


@pytest.fixture(autouse=True)
def _nothing_is_known_of_any_server() -> None:
    replay_probe._proved.clear()
    replay_probe._last_answers.clear()


@pytest.fixture
def posted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every request that `SglangEngine` sends, with its reply."""
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []
    real = SglangEngine._post

    async def post(engine: SglangEngine, request: bytes, routing_key: str, *rest: Any) -> Any:
        sent = {**json.loads(request), "key": routing_key}
        reply = await real(engine, request, routing_key, *rest)
        seen.append((sent, reply))
        return reply

    monkeypatch.setattr(SglangEngine, "_post", post)
    return seen


async def play(server: Server, checkpoint: Path, episodes: int, *, top_p: float = 1.0, **args: Any) -> list[Any]:
    namespace = SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip="127.0.0.1",
        sglang_router_port=server.port,
        rollout_max_context_len=16384,
        rollout_max_response_len=64,
        rollout_top_p=top_p,
        tau2={"user_model": "scripted", "max_turns": 10},
        **args,
    )
    params: dict[str, Any] = {"temperature": 1.0, "top_p": top_p, "top_k": -1, "max_new_tokens": 64}
    if top_p != 1.0:
        params["custom_params"] = {"return_top_p_token_ids": True}  # as slime does

    async def one(index: int) -> Any:
        metadata = {"domain": "mock", "task_split": "base"}
        sample = StandaloneSample(index=index, prompt=TASKS[index % len(TASKS)], metadata=metadata)
        return await generate(namespace, sample, params)

    return await asyncio.gather(*(one(index) for index in range(episodes)))


R3 = {"use_rollout_routing_replay": True, "num_layers": SHAPE.layers, "moe_router_topk": SHAPE.topk, "num_experts": 8}


def empty_cache(server: Server) -> None:
    """The server refuses (400) while a request is still on its way out."""
    for _ in range(100):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/flush_cache", timeout=60).close()
            return
        time.sleep(0.1)
    raise TimeoutError("the server is not idle")


async def test_routed_experts_are_those_that_every_token_met(
    moe_worker: Server, moe_checkpoint: Path, posted: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    cluster = Cluster([moe_worker], moe_worker)

    async def interrupt() -> None:
        while True:
            await asyncio.sleep(0.3)
            await cluster.until_sampling()
            await asyncio.to_thread(cluster.abort_all)

    interruptions = asyncio.create_task(interrupt())
    samples = await play(moe_worker, moe_checkpoint, 8, **R3)
    interruptions.cancel()
    assert {s.status for s in samples} <= set(PLAYED), [s.metadata["tau2"]["detail"] for s in samples]
    assert sum(s.metadata["tau2"]["stats"]["resumed_aborts"] for s in samples) > 0

    # Each call asks only for what the ones before have not brought.
    for sample in samples:
        calls = [(p, r) for p, r in posted if p["key"] == sample.session_id and r["output_ids"]]
        assert calls[0][0]["routed_experts_start_len"] == 0
        for (earlier, reply), (later, _) in itertools.pairwise(calls):
            read = len(earlier["input_ids"]) + len(reply["output_ids"]) - 1
            assert later["routed_experts_start_len"] == read

    # The same tokens read once more, from an empty cache, meet the same experts.
    same = total = 0
    for sample in samples:
        rows = sample.rollout_routed_experts
        assert rows.dtype == np.int32 and rows.shape == (len(sample.tokens) - 1, SHAPE.layers, SHAPE.topk)
        await asyncio.to_thread(empty_cache, moe_worker)
        again = await SglangEngine(moe_worker.url).generate(
            list(sample.tokens),
            {"max_new_tokens": 1, "temperature": 1.0},
            routing_key="again",
            replay=ReplayRequest(ReplaySpec(experts=SHAPE)),
        )
        assert again.replay is not None and again.replay.experts is not None
        prefill = np.array(again.replay.experts).reshape(-1, SHAPE.layers, SHAPE.topk)
        last = len(sample.tokens) - sample.response_length + max(i for i, m in enumerate(sample.loss_mask) if m)
        equal = (np.sort(rows[:last], -1) == np.sort(prefill[:last], -1)).all((1, 2))
        same, total = same + int(equal.sum()), total + last
    print(f"\n{same} of {total} positions met the same experts when they were read again")
    assert same > 0.999 * total  # prefill and decode round differently: a tie may fall the other way


async def test_kept_sets_are_those_that_the_server_sampled_from(
    patched_worker: Server, checkpoint: Path, posted: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    samples = await play(patched_worker, checkpoint, 8, top_p=0.8)
    assert {s.status for s in samples} <= set(PLAYED), [s.metadata["tau2"]["detail"] for s in samples]
    sizes = set()
    for sample in samples:
        ids, offsets = sample.rollout_top_p_token_ids, sample.rollout_top_p_token_offsets
        assert len(offsets) == sample.response_length + 1 and offsets[0] == 0 and offsets[-1] == len(ids)
        response = sample.tokens[-sample.response_length :]
        for position, (token, mask) in enumerate(zip(response, sample.loss_mask, strict=True)):
            kept = ids[offsets[position] : offsets[position + 1]].tolist()
            assert (token in kept) if mask else kept == []
            if mask:
                sizes.add(len(kept))
                if len(kept) == 1:  # the only one left: certain
                    assert sample.rollout_log_probs[position] == pytest.approx(0.0, abs=1e-4)
    assert len(sizes) > 3

    # Evaluation has nothing to replay and does not ask.
    posted.clear()
    args = SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip="127.0.0.1",
        sglang_router_port=patched_worker.port,
        rollout_top_p=0.8,
        rollout_max_context_len=16384,
        tau2={"user_model": "scripted"},
    )
    sample = StandaloneSample(prompt=TASKS[0], metadata={"domain": "mock", "task_split": "base"})
    await generate(args, sample, {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 32}, evaluation=True)
    assert sample.status in PLAYED and sample.rollout_top_p_token_ids is None
    assert all("custom_params" not in payload["sampling_params"] for payload, _ in posted)


@pytest.mark.parametrize(
    "wants, told",
    [
        ({"top_p": 0.8}, "top_p_token_ids, without which --rollout-top-p"),
        (R3, "routed_experts, without which --use-rollout-routing-replay"),
    ],
    ids=["top-p", "experts"],
)
async def test_the_stock_router_is_found_out_at_the_first_call(
    forge: Forge,
    moe_worker: Server,
    moe_checkpoint: Path,
    posted: list[tuple[dict[str, Any], dict[str, Any]]],
    wants: dict[str, Any],
    told: str,
) -> None:
    router = forge.router({"policy": "consistent_hashing", "worker_urls": [moe_worker.url]})
    try:
        Cluster([moe_worker], router).wait_until_registered()
        samples = await play(router, moe_checkpoint, 6, **wants)
    finally:
        stop_all([router])
    assert len(posted) == 1, "one token was enough to know"
    for sample in samples:
        facts = sample.metadata["tau2"]
        assert (sample.status, facts["termination"]) == (Status.FAILED, "config_error")
        assert told in facts["detail"] and "stock sglang-router drops" in facts["detail"]
        # Still a sample that slime's conversion takes beside others.
        if wants is R3:
            assert sample.rollout_routed_experts.shape == (len(sample.tokens) - 1, SHAPE.layers, SHAPE.topk)
        else:
            assert sample.rollout_top_p_token_offsets.tolist() == [0] * (sample.response_length + 1)
