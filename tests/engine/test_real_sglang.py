"""Whole episodes against the real sglang server and the real sglang-router, on a CPU.

    pytest tests/engine                        # builds .venv-engine on the first run (1.3 GB)
    python tests/engine/setup_env.py           # only builds it

A tiny random Qwen3 plays τ²'s mock domain through `tau2_slime.generate_with_tau2.generate`: it rambles, stops on either
of its two stop tokens, and calls tools well and badly. What it says is worthless; that every token of it arrives in the
sample exactly as sampled is what is tested. Nothing here is mocked: `Recorder` only listens to the replies.
Skipped, with the installer's words, only where torch cannot be had. Logs: ``.cache/engine/logs``, shown on failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from tau2_slime.errors import EngineUnavailable
from tau2_slime.generate_with_tau2 import generate
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.tokens.engine import SglangEngine
from tests.engine.cluster import CONTEXT_LENGTH, Cluster, Forge
from tests.engine.conftest import LogprobsCheck

Status = StandaloneSample.Status
TOLERANCE = 1e-3
MAX_NEW_TOKENS = 64
"""Per turn; a few turns in a hundred reach it."""
TASKS = (0, 2, 3, 4, 5, 6, 8)
"""Tasks of the mock domain's base split, by position; τ²'s own assertions raise for two when the agent creates nothing."""


@dataclass
class Call:
    """One successful generate call, as the server saw and answered it."""

    input_ids: list[int]
    reply: dict[str, Any]

    @property
    def ids(self) -> list[int]:
        return list(self.reply["output_ids"])

    @property
    def log_probs(self) -> list[float]:
        return [entry[0] for entry in self.reply["meta_info"]["output_token_logprobs"]]

    @property
    def finish(self) -> str:
        return str(self.reply["meta_info"]["finish_reason"]["type"])

    @property
    def worker(self) -> str:
        return str(self.reply["meta_info"]["weight_version"])

    @property
    def cached_tokens(self) -> int:
        return int(self.reply["meta_info"]["cached_tokens"])


class Stops(NamedTuple):
    """The two tokens that end a turn, as in Qwen's own checkpoints."""

    closer: int
    """What the chat template writes after every turn."""
    other: int


def stops_of(checkpoint: Path) -> Stops:
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(checkpoint).get_vocab()
    return Stops(vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"])


class Recorder:
    """Listens to every reply that `SglangEngine` gets, by episode."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[int, list[Call]] = {}
        self.failures = 0
        self.episode: contextvars.ContextVar[int] = contextvars.ContextVar("episode")
        self.on_call: Callable[[], None] = lambda: None
        real_post = SglangEngine._post

        async def post(engine: SglangEngine, request: bytes, *rest: Any) -> Any:
            sent = json.loads(request)["input_ids"]
            try:
                reply = await real_post(engine, request, *rest)
            except EngineUnavailable:
                self.failures += 1
                raise
            self.calls.setdefault(self.episode.get(), []).append(Call(sent, json.loads(json.dumps(reply))))
            self.on_call()
            return reply

        monkeypatch.setattr(SglangEngine, "_post", post)

    @property
    def total(self) -> int:
        return sum(map(len, self.calls.values()))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(monkeypatch)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import os

    for name in [name for name in os.environ if name.startswith("TAU2_") and name != "TAU2_DATA_DIR"]:
        monkeypatch.delenv(name)
    yield


def fresh(episodes: int) -> list[StandaloneSample]:
    data = {"domain": "mock", "task_split": "base"}
    return [StandaloneSample(index=i, prompt=TASKS[i % len(TASKS)], metadata=dict(data)) for i in range(episodes)]


async def play(
    recorder: Recorder,
    cluster: Cluster,
    checkpoint: Path,
    episodes: int | list[StandaloneSample],
    *,
    temperature: float,
    aborted: Callable[[], bool] | None = None,
    **tau2: Any,
) -> list[StandaloneSample]:
    """Play ``episodes`` (new ones, or samples that came back) at once, as slime does: one asyncio task per sample, its
    sampling parameters, its namespace."""
    args = SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip="127.0.0.1",
        sglang_router_port=cluster.router.port,
        sglang_context_length=CONTEXT_LENGTH,
        rollout_max_context_len=CONTEXT_LENGTH,
        rollout_max_response_len=MAX_NEW_TOKENS,
        tau2={"user_model": "scripted", "max_turns": 10, "drift_rate": 1.0, **tau2},
        tau2_aborted=aborted,
    )
    sampling_params = {
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": -1,
        "max_new_tokens": MAX_NEW_TOKENS,
        "stop": None,
        "stop_token_ids": None,
        "skip_special_tokens": False,
        "no_stop_trim": True,
        "spaces_between_special_tokens": False,
    }

    async def one(sample: StandaloneSample) -> StandaloneSample:
        recorder.episode.set(sample.index or 0)
        filled = await generate(args, sample, sampling_params)
        assert filled is sample
        return sample

    samples = fresh(episodes) if isinstance(episodes, int) else episodes
    return await asyncio.gather(*(asyncio.create_task(one(sample)) for sample in samples))


def tau2_facts(sample: StandaloneSample) -> dict[str, Any]:
    return dict(sample.metadata["tau2"])


def assert_tokens_are_the_servers(sample: StandaloneSample, calls: list[Call], stops: Stops) -> None:
    """Every token with mask 1 is one that the server returned, in order, with its log-prob; every input was the sample.

    The one token that a server returned and a sample may lack is ``stops.other`` at the end of a turn: the chat template
    closes turns with another token, so that it was replaced and is not trained.
    """
    assert sample.loss_mask is not None and sample.rollout_log_probs is not None
    prompt = len(sample.tokens) - sample.response_length
    assert len(sample.loss_mask) == len(sample.rollout_log_probs) == sample.response_length
    from_server: dict[int, tuple[int, float]] = {}
    for number, call in enumerate(calls):
        start = len(call.input_ids)
        assert start >= prompt
        assert call.input_ids == sample.tokens[:start]
        assert call.input_ids[-1] not in stops, "a turn that had stopped was continued"
        ids, log_probs = call.ids, call.log_probs
        replaced = number + 1 < len(calls) and ids[-1:] == [stops.other]
        if replaced:
            ids, log_probs = ids[:-1], log_probs[:-1]
            assert sample.tokens[start + len(ids)] != stops.other
        from_server.update({start + k: pair for k, pair in enumerate(zip(ids, log_probs, strict=True))})
    trained = {
        prompt + k: (sample.tokens[prompt + k], sample.rollout_log_probs[k])
        for k, mask in enumerate(sample.loss_mask)
        if mask == 1
    }
    assert trained == from_server
    assert all(p == 0.0 for p, mask in zip(sample.rollout_log_probs, sample.loss_mask, strict=True) if mask == 0)
    assert sample.weight_versions == [call.worker for call in calls if call.ids]


async def test_64_concurrent_episodes_are_token_exact(
    recorder: Recorder, cluster: Cluster, checkpoint: Path, logprobs_check: LogprobsCheck
) -> None:
    temperature = 0.8  # not 1: the server's log-probs are those of the tempered distribution
    begin = time.monotonic()
    samples = await play(recorder, cluster, checkpoint, 64, temperature=temperature)
    played = time.monotonic() - begin
    stops = stops_of(checkpoint)

    assert {s.status for s in samples} <= {Status.COMPLETED, Status.TRUNCATED}, [
        tau2_facts(s)["detail"] for s in samples if s.status not in (Status.COMPLETED, Status.TRUNCATED)
    ]
    for sample in samples:
        assert_tokens_are_the_servers(sample, recorder.calls[sample.index or 0], stops)

    # One worker per episode (the sticky key), both workers at work, and so the second turn finds the first one cached.
    workers = {index: {call.worker for call in calls} for index, calls in recorder.calls.items()}
    assert all(len(names) == 1 for names in workers.values())
    assert set().union(*workers.values()) == {worker.name for worker in cluster.workers}
    for calls in recorder.calls.values():
        for earlier, later in itertools.pairwise(calls):
            assert later.cached_tokens >= len(earlier.input_ids)

    # The run met what it is there to meet: stops of both kinds, tool results, broken calls, turns that ran out of length.
    finishes = Counter(call.finish for calls in recorder.calls.values() for call in calls)
    statuses: Counter[str] = Counter()
    junctions: Counter[str] = Counter()
    for sample in samples:
        statuses.update(tau2_facts(sample)["stats"]["tool_calls"])
        junctions.update(tau2_facts(sample)["stats"]["junctions"])
    assert finishes["stop"] and finishes["length"]
    assert statuses["ok"] and statuses["unknown_tool"] and statuses["invalid_json"]
    assert junctions["closed"] and junctions["replaced"]

    # The template, asked once more with the whole conversation, writes what was appended between the turns. And the run
    # could tell a client that tokenises the model's words again: other ids would come back for many of these turns.
    drift: Counter[str] = Counter()
    for sample in samples:
        drift.update(tau2_facts(sample)["stats"]["drift"])
    assert drift["environment_mismatches"] == 0
    assert drift["retokenised_turns"] > 0

    worst, positions = logprobs_check(samples, temperature)
    assert positions == sum(sum(s.loss_mask or []) for s in samples) > 64
    assert max(worst) < TOLERANCE
    ends = Counter(tau2_facts(s)["termination"] for s in samples)
    tokens = sum(len(s.tokens) for s in samples)
    print(f"\n{len(samples)} episodes in {played:.0f} s: {recorder.total} calls {dict(finishes)}, ends {dict(ends)}")
    print(f"tool calls {dict(statuses)}, junctions {dict(junctions)}, {tokens} tokens, {positions} of them sampled")
    print(f"drift {dict(drift)}, largest |log-prob difference| {max(worst):.1e}")

    # The measurement can tell: one foreign token in front of what was sampled, and the log-probs no longer fit.
    changed = next(s for s in samples if sum(s.loss_mask or []) > 20)
    last_of_prompt = len(changed.tokens) - changed.response_length - 1
    changed.tokens[last_of_prompt] = (changed.tokens[last_of_prompt] + 1) % 256
    worst, _ = logprobs_check([changed], temperature)
    assert worst[0] > TOLERANCE


async def test_turns_that_a_weight_update_cuts_short_are_continued_in_place(
    recorder: Recorder, cluster: Cluster, checkpoint: Path, logprobs_check: LogprobsCheck
) -> None:
    async def interrupt() -> None:
        while True:
            await asyncio.sleep(0.1)
            await cluster.until_sampling()
            await asyncio.to_thread(cluster.abort_all)

    interruptions = asyncio.create_task(interrupt())
    samples = await play(recorder, cluster, checkpoint, 16, temperature=1.0)
    interruptions.cancel()
    stops = stops_of(checkpoint)
    assert {s.status for s in samples} <= {Status.COMPLETED, Status.TRUNCATED}
    for sample in samples:
        assert_tokens_are_the_servers(sample, recorder.calls[sample.index or 0], stops)
    resumed = sum(tau2_facts(s)["stats"]["resumed_aborts"] for s in samples)
    # An abort may come together with the token that ends the turn: then nothing is left to continue.
    aborts = [c for calls in recorder.calls.values() for c in calls if c.finish == "abort"]
    partial = [call for call in aborts if not call.ids or call.ids[-1] not in stops]
    assert resumed == len(partial) > 0
    assert any(call.ids for call in partial)
    worst, _ = logprobs_check(samples, 1.0)
    assert max(worst) < TOLERANCE
    print(f"\n{len(samples)} episodes, {resumed} turns cut short, largest |log-prob difference| {max(worst):.1e}")


@pytest.mark.parametrize("mode", ["retract", "in_place"])
async def test_turns_that_a_pause_holds_go_on_as_one_call(
    recorder: Recorder, cluster: Cluster, checkpoint: Path, logprobs_check: LogprobsCheck, mode: str
) -> None:
    """What miles' weight updates do to running requests."""
    pauses = 0

    async def hold() -> None:
        nonlocal pauses
        while True:
            await asyncio.sleep(0.1)
            await cluster.until_sampling()
            await asyncio.to_thread(cluster.pause, mode)
            pauses += 1

    holding = asyncio.create_task(hold())
    samples = await play(recorder, cluster, checkpoint, 12, temperature=1.0)
    holding.cancel()
    stops = stops_of(checkpoint)
    assert {s.status for s in samples} <= {Status.COMPLETED, Status.TRUNCATED}
    for sample in samples:
        assert_tokens_are_the_servers(sample, recorder.calls[sample.index or 0], stops)
        assert tau2_facts(sample)["stats"]["resumed_aborts"] == 0
    retracted = sum(c.reply["meta_info"]["num_retractions"] for calls in recorder.calls.values() for c in calls)
    assert pauses > 0
    assert (retracted > 0) is (mode == "retract")
    worst, _ = logprobs_check(samples, 1.0)
    assert max(worst) < TOLERANCE
    print(
        f"\n{len(samples)} episodes, {pauses} pauses, {retracted} retractions, |log-prob difference| {max(worst):.1e}"
    )


async def test_episodes_that_a_rollout_leaves_unfinished_are_taken_up_by_the_next(
    recorder: Recorder, cluster: Cluster, checkpoint: Path, logprobs_check: LogprobsCheck
) -> None:
    """Partial rollout: slime raises its flag, aborts the servers, and hands the same samples to the next rollout."""
    samples = fresh(24)
    rollouts = 0
    while left := [s for s in samples if s.status in (Status.PENDING, Status.ABORTED)]:
        stop = False

        async def abort(calls: int) -> None:
            nonlocal stop
            while recorder.total < calls:  # noqa: ASYNC110 - the recorder has no event for it
                await asyncio.sleep(0.02)
            await cluster.until_sampling()
            stop = True
            for _ in range(3):
                await asyncio.to_thread(cluster.abort_all)
                await asyncio.sleep(0.05)

        # Short rollouts at first (24 episodes make over a hundred calls), then one that ends everything.
        if rollouts < 6:
            ending = asyncio.create_task(abort(recorder.total + 8))
        await play(recorder, cluster, checkpoint, left, temperature=1.0, aborted=lambda: stop)  # noqa: B023
        ending.cancel()
        rollouts += 1
    stops = stops_of(checkpoint)
    assert {s.status for s in samples} <= {Status.COMPLETED, Status.TRUNCATED}
    for sample in samples:
        assert_tokens_are_the_servers(sample, recorder.calls[sample.index or 0], stops)
        assert tau2_facts(sample)["restarted"] == ""
        assert tau2_facts(sample)["stats"]["drift"]["environment_mismatches"] == 0
    resumes = [tau2_facts(s)["stats"]["resumes"] for s in samples]
    cut = [c for calls in recorder.calls.values() for c in calls if c.finish == "abort" and c.ids]
    assert rollouts > 1 and any(resumes) and cut, "no turn was interrupted"
    worst, _ = logprobs_check(samples, 1.0)
    assert max(worst) < TOLERANCE
    print(f"\n{len(samples)} episodes in {rollouts} rollouts, taken up {sum(resumes)} times, {len(cut)} turns cut,")
    print(f"largest |log-prob difference| {max(worst):.1e}")


async def test_a_worker_killed_in_mid_run_costs_no_episode_its_truth(
    recorder: Recorder, forge: Forge, checkpoint: Path, logprobs_check: LogprobsCheck
) -> None:
    with Cluster.start(forge, 2, health_check_interval_secs=1, health_failure_threshold=2) as cluster:
        begin = time.monotonic()
        victims: list[Any] = []

        def strike() -> None:
            """Kill the first worker on which four episodes have said something and have not come to an end by it."""
            for worker in cluster.workers:
                living = [
                    calls
                    for calls in recorder.calls.values()
                    if {call.worker for call in calls} == {worker.name}
                    and calls[-1].finish == "stop"
                    and len(calls[-1].ids) > 1
                ]
                if len(living) >= 4 and not victims:
                    victims.append(worker)
                    worker.kill()

        recorder.on_call = strike
        samples = await play(recorder, cluster, checkpoint, 16, temperature=1.0)
        played = time.monotonic() - begin
        assert [worker.running for worker in victims] == [False]
        survivors = [s for s in samples if s.status in (Status.COMPLETED, Status.TRUNCATED)]
        for sample in samples:
            if sample not in survivors:
                assert sample.status is Status.FAILED
                assert tau2_facts(sample)["blame"] == "infrastructure"
                assert sample.remove_sample and not any(sample.loss_mask or [])
        stops = stops_of(checkpoint)
        for sample in survivors:
            assert_tokens_are_the_servers(sample, recorder.calls[sample.index or 0], stops)
        moved = [s for s in survivors if len(set(s.weight_versions)) == 2]
        assert moved, "no episode began on the killed worker and ended on the other one"
        worst, _ = logprobs_check(survivors, 1.0)
        assert max(worst) < TOLERANCE
        print(f"\n{len(survivors)} of {len(samples)} episodes in {played:.0f} s survived, {len(moved)} changed workers")
        print(f"{recorder.failures} failed requests, largest |log-prob difference| {max(worst):.1e}")

        # And when the last worker dies, episodes end as the infrastructure's fault, not as zeros of the agent.
        next(worker for worker in cluster.workers if worker.running).kill()
        recorder.on_call = lambda: None
        lost = await play(recorder, cluster, checkpoint, 4, temperature=1.0, request_retries=1)
        for sample in lost:
            assert sample.status is Status.FAILED and sample.remove_sample and not any(sample.loss_mask or [])
            assert tau2_facts(sample)["termination"] == "infrastructure_error"
