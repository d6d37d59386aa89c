"""What crosses to a worker and back: nothing that an episode reads is missing, and no number changes."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tau2_slime.generate_with_tau2 import play
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.slime_adapter import compat
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.slime_adapter.workers import traces, wire
from tau2_slime.slime_adapter.workers.task import OTHER_ARGUMENTS, SLIMES_ARGUMENTS, Played, Task

ours = st.integers(min_value=0, max_value=2**31)


@given(
    tokens=st.lists(ours, min_size=1),
    response=st.lists(st.tuples(st.integers(0, 1), st.floats(max_value=0, allow_nan=False))),
    versions=st.lists(st.text()),
    reward=st.one_of(st.none(), st.floats(0, 1)),
    status=st.sampled_from(list(StandaloneSample.Status)),
)
def test_every_number_comes_back_as_it_was(
    tokens: list[int], response: list[tuple[int, float]], versions: list[str], reward: float | None, status: Any
) -> None:
    filled = Task({}, "PENDING", {}, {}, False, None).sample()
    filled.tokens, filled.weight_versions, filled.reward, filled.status = tokens, versions, reward, status
    filled.loss_mask, filled.rollout_log_probs = [mask for mask, _ in response], [value for _, value in response]
    filled.response_length, filled.metadata = len(response), {"tau2": {"detail": ""}}
    sample = StandaloneSample(index=3, group_index=1, prompt="p")
    pickle.loads(pickle.dumps(Played.of(filled))).put_into(sample)
    assert (sample.index, sample.group_index, sample.prompt) == (3, 1, "p"), "slime's own fields stay"
    for name in ("tokens", "loss_mask", "weight_versions", "reward", "status", "response_length", "metadata"):
        assert getattr(sample, name) == getattr(filled, name), name
    assert sample.rollout_log_probs is not None
    assert list(map(repr, sample.rollout_log_probs)) == list(map(repr, filled.rollout_log_probs)), "also -0.0"


class Watched(SimpleNamespace):
    """Arguments that remember which of them were looked for."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            super().__getattribute__("_asked").add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("evaluation", [False, True])
async def test_a_worker_is_told_every_argument_that_an_episode_reads(checkpoint: Path, evaluation: bool) -> None:
    async with PolicyServer(checkpoint) as server:
        args = Watched(
            _asked=set(),
            hf_checkpoint=str(checkpoint),
            sglang_router_ip="127.0.0.1",
            sglang_router_port=server.port,
            custom_config_path="config.yaml",
            tau2={"user_model": "scripted", "domain": "mock", "task_split": "file:missing.jsonl"},
        )
        metadata = {"task_id": "create_task_1", "task_split": "base"}
        sample = StandaloneSample(index=0, metadata=metadata)
        await play(args, sample, {"max_new_tokens": 512}, evaluation)
        assert sample.reward == 1.0, sample.metadata
        lost = StandaloneSample(index=0, metadata={"task_split": "file:missing.jsonl"})
        await play(args, lost, {"max_new_tokens": 512}, evaluation)
    told = {*SLIMES_ARGUMENTS, *OTHER_ARGUMENTS, "eval_datasets", "tau2_aborted"}
    assert args._asked - told == {"tau2_on_result", "tau2_on_setup"}  # of commands that have no workers


def test_slimes_counts_of_calls_grow_as_if_slimes_process_had_made_them() -> None:
    class Info:
        def __init__(self) -> None:
            self.prompt_tokens = 40  # of an earlier rollout

        def add(self, meta: dict[str, Any]) -> None:
            self.prompt_tokens += meta.get("prompt_tokens", 0)

    worker = Task({}, "PENDING", {}, {}, False, None).sample()
    for tokens in (10, 30):
        worker.prefix_cache_info.add({"prompt_tokens": tokens, "id": "x" * 1000})
    played = Played.of(worker)
    assert len(pickle.dumps(played)) < 1000, "only what is counted travels"
    sample: Any = SimpleNamespace(prefix_cache_info=Info(), spec_info=Info())
    sample = type("Sample", (SimpleNamespace,), {"Status": StandaloneSample.Status})(**vars(sample))
    played.put_into(sample)
    assert (sample.prefix_cache_info.prompt_tokens, sample.spec_info.prompt_tokens) == (80, 80)


def test_slime_gets_the_spans_of_a_workers_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def trace_span(target: Any, name: str, *, attrs: dict[str, Any]) -> Iterator[Any]:
        events = target.trace["events"]
        events.append({"type": "span_start", "name": name, "ts": 1000.0, "attrs": attrs})
        said: dict[str, Any] = {}
        yield SimpleNamespace(update=said.update)
        events.append({"type": "event", "name": "prefill", "ts": 1000.5})
        events.append({"type": "span_end", "name": name, "ts": 1001.0, "attrs": said})

    slimes = types.ModuleType("slime.observability.trace_utils")
    slimes.trace_span = trace_span  # type: ignore[attr-defined]
    slimes.build_sglang_meta_trace_attrs = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, slimes.__name__, slimes)
    worker = Task({}, "PENDING", {}, {}, False, None).sample()
    trace = compat.generation_trace(worker)
    assert trace is not None
    with contextlib.suppress(KeyError), trace(64):
        raise KeyError("a call that failed")
    with trace(64) as tell:
        tell({"prompt_tokens": 7, "e2e_latency": 0.5, "output_token_logprobs": [[0.0, 1, None]] * 1000})
    (call,) = worker.calls
    sample: Any = SimpleNamespace(trace={"events": []})
    traces.trace_calls(sample, [pickle.loads(pickle.dumps(call))])
    start, child, end = sample.trace["events"]
    assert (start["name"], start["attrs"]) == ("sglang_generate", {"max_new_tokens": 64})
    assert end["attrs"] == {"prompt_tokens": 7, "e2e_latency": 0.5}
    assert (start["ts"], child["ts"], end["ts"]) == pytest.approx((call.start, call.start + 0.5, call.end))


# ---- the connection ----------------------------------------------------------------------------------------------------


async def meet(pools_key: bytes | None, workers_key: bytes) -> tuple[Any, Any]:
    """What the pool's side and the worker's side make of each other."""
    pools: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pools.set_result(await wire.admit(reader, writer, {7: pools_key}.get))
        except (PermissionError, EOFError) as error:
            writer.close()
            pools.set_result(error)

    server = await asyncio.start_server(admit, "127.0.0.1", 0)
    async with server:
        try:
            worker: Any = await wire.introduce("127.0.0.1", server.sockets[0].getsockname()[1], 7, workers_key)
        except (PermissionError, EOFError) as error:
            worker = error
        return await pools, worker


async def test_who_knows_the_key_is_heard() -> None:
    (number, pools), worker = await meet(b"key", b"key")
    assert number == 7
    worker.post("done", 1, [1.5], "é" * 100_000)
    assert await pools.receive() == ("done", 1, [1.5], "é" * 100_000)
    pools.close()
    with pytest.raises(EOFError):
        await worker.receive()


@pytest.mark.parametrize("pools_key", [b"another", None])
async def test_who_does_not_is_not(pools_key: bytes | None) -> None:
    pools, worker = await meet(pools_key, b"key")
    assert isinstance(pools, PermissionError)
    assert isinstance(worker, EOFError)
