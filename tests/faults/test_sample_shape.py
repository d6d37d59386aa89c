"""Whatever comes in and whatever breaks, `generate` hands back the same sample in a shape that slime can train on."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest

from tau2_slime import generate_with_tau2
from tau2_slime.slime_adapter.sample import StandaloneSample
from tests.faults.conftest import GOLD, PAID, Stage, Status, check_sample, detail, outcome
from tests.faults.servers import Ask, Move, answer, error, http, partial, queued_abort, reset_mid_reply, say


@pytest.mark.surprise
async def test_a_bug_is_logged_once_with_its_traceback(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("tau2_slime.episode.setup.make_user", explode)
    samples = await asyncio.gather(*(stage.play(name=f"s{i}") for i in range(20)))
    assert {outcome(sample) for sample in samples} == {(Status.FAILED, "infrastructure_error", "infrastructure")}
    assert all("a bug of ours" in detail(sample) for sample in samples)
    assert len([r for r in caplog.records if r.name.startswith("tau2_slime") and r.exc_text]) == 1


# ---- samples as slime makes them -------------------------------------------------------------------------------------


@dataclass
class _Counts:
    """Like slime's PrefixCacheInfo: adds what it finds."""

    total: int = 0

    def add(self, meta: dict[str, Any]) -> None:
        self.total += meta.get("cached_tokens", 0) + meta.get("prompt_tokens", 0)


@dataclass
class SlimeSample(StandaloneSample):
    prefix_cache_info: _Counts = field(default_factory=_Counts)
    spec_info: _Counts = field(default_factory=_Counts)


def _fresh(cls: type[StandaloneSample] = SlimeSample, **changes: Any) -> Any:
    metadata = {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}
    return cls(**{"index": 5, "group_index": 2, "session_id": "episode", "metadata": metadata, **changes})


async def test_cache_statistics_are_added(stage: Stage) -> None:
    stage.router.script = GOLD
    sample = await stage.run(stage.args(), _fresh())
    assert sample.prefix_cache_info.total == sum(len(ask.ids) for ask in stage.router.asks)


async def test_strange_statistics_of_the_server_break_nothing(stage: Stage) -> None:
    odd = answer("Your case is now complete.", mangle=lambda body: body["meta_info"].update(cached_tokens=None))
    stage.router.script = [GOLD[0], odd]
    sample = _fresh()
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99})
    check_sample(sample)
    assert outcome(sample) == PAID


async def test_an_earlier_unfinished_episode_is_forgotten(stage: Stage) -> None:
    first = await stage.play([partial("Let me")], aborted=lambda: bool(stage.router.asks))
    assert first.status is Status.ABORTED
    stage.router.script = GOLD
    stage.router.sent.clear()
    stage.router.asks.clear()
    stage.router._at.clear()
    first.metadata = {key: value for key, value in first.metadata.items() if key != "tau2"}
    first.loss_mask = [0] * first.response_length
    for name in ("raw_reward", "round_number", "tau2_resume"):  # without it nothing can be taken up
        del first.metadata[name]
    again = await stage.run(stage.args(), first)
    assert outcome(again) == PAID
    assert again.reward == 1.0
    assert again.metadata["raw_reward"] == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": None},
        {"metadata": {}},
        {"metadata": "text"},
        {"metadata": [1]},
        {"metadata": {"domain": 7, "task_id": b"bytes"}},
        {"metadata": {1: 2, None: 3}},
        {"prompt": None},
        {"prompt": [{"role": "user", "content": "3"}]},
        {"index": None, "group_index": None, "session_id": None},
        {"index": "first"},
    ],
    ids=str,
)
async def test_any_sample_comes_back(stage: Stage, changes: dict[str, Any]) -> None:
    stage.router.script = GOLD
    sample = _fresh(**changes)
    assert await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}) is sample
    check_sample(sample)


@pytest.mark.parametrize("position", [0, 0.0, "0", Fraction(0)], ids=repr)
async def test_a_position_may_be_any_number(stage: Stage, position: Any) -> None:
    """A data source over pandas gives 3.0 where a column has gaps; numpy's numbers register as `numbers.Real`."""
    for changes in ({"metadata": {"index": position}}, {"metadata": {}, "prompt": position}):
        stage.router.script = GOLD
        stage.router._at.clear()
        sample = _fresh(**changes)
        sample.metadata.update(domain="mock", task_split="base")
        await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99})
        assert sample.metadata["tau2"]["task_id"] == "create_task_1"


async def test_a_sample_without_a_session_gets_one_and_the_router_sees_it(stage: Stage) -> None:
    stage.router.script = GOLD
    sample = _fresh(session_id=None)
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}, True)
    assert sample.session_id
    assert {ask.key for ask in stage.router.asks} == {sample.session_id}


@pytest.mark.parametrize("params", [None, {}, {"max_new_tokens": None}, {"max_new_tokens": "many"}], ids=str)
async def test_any_sampling_parameters(stage: Stage, params: Any, request: pytest.FixtureRequest) -> None:
    stage.router.script = GOLD
    request.node.add_marker(pytest.mark.surprise)
    sample = _fresh()
    assert await generate_with_tau2.generate(stage.args(), sample, params) is sample
    check_sample(sample)


@pytest.mark.surprise
@pytest.mark.parametrize(
    "place",
    [
        "tau2_slime.episode.play._count",
        "tau2_slime.policy.sampling.TokenTranscript.drift",
        "tau2_slime.world.scoring.score",
        "tau2_slime.world.environment.World.set_state",
        "tau2_slime.world.environment.World.call",
        "tau2_slime.tokens.template.chat_delta.ChatDelta.between",
        "tau2_slime.tokens.template.chat_delta.ChatDelta.first_prompt_delta",
        "tau2_slime.tokens.calls.parsers.hermes.HermesParser.parse",
        "tau2_slime.local.scripted_user.ScriptedUser.reply",
        "tau2_slime.slime_adapter.sample.fill_sample",
        "tau2_slime.generate_with_tau2.rollout_state",
    ],
)
async def test_a_bug_anywhere_stops_no_training(stage: Stage, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    times = 0
    owner, name = place.rsplit(".", 1)
    original = _resolve(owner, name)

    def explode(*args: Any, **kwargs: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            raise ZeroDivisionError("a bug of ours")
        return original(*args, **kwargs)

    monkeypatch.setattr(place, explode)
    stage.router.script = GOLD
    sample = _fresh()
    assert await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99}) is sample
    assert times, "the planted bug was met"
    check_sample(sample)
    if name == "drift":
        assert outcome(sample) == PAID, "a metric costs no episode"
    else:
        assert outcome(sample)[::2] == (Status.FAILED, "infrastructure")
        assert "a bug of ours" in detail(sample)


@pytest.mark.surprise
async def test_a_callback_that_fails_loses_no_sample(stage: Stage) -> None:
    def explode(sample: Any, result: Any) -> None:
        raise OSError("disk full")

    sample = await stage.play(args={"tau2_on_result": explode})
    assert outcome(sample) == PAID


def _resolve(owner: str, name: str) -> Any:
    import importlib

    parts = owner.split(".")
    for size in range(len(parts), 0, -1):
        try:
            value: Any = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for part in parts[size:]:
            value = getattr(value, part)
        return getattr(value, name)
    raise ImportError(owner)


@dataclass
class OldSample:
    """A Sample that has no session_id, weight_versions and non_generation_time."""

    Status = StandaloneSample.Status

    index: int | None = 0
    prompt: Any = ""
    tokens: list[int] = field(default_factory=list)
    response: str = ""
    response_length: int = 0
    reward: float | None = None
    loss_mask: list[int] | None = None
    rollout_log_probs: list[float] | None = None
    status: StandaloneSample.Status = StandaloneSample.Status.PENDING
    metadata: dict[str, Any] = field(default_factory=dict)
    remove_sample: bool = False


async def test_a_sample_of_an_older_slime(stage: Stage) -> None:
    """Fields that its Sample lacks are not invented: its debug dump would not know them."""
    stage.router.script = GOLD
    sample = OldSample(metadata={"domain": "mock", "task_split": "base", "task_id": "create_task_1"})
    await generate_with_tau2.generate(stage.args(), sample, {"max_new_tokens": 99})
    assert outcome(sample) == PAID
    assert set(vars(sample)) == {f.name for f in dataclasses.fields(OldSample)}


# ---- many at once ----------------------------------------------------------------------------------------------------

_PASSING: list[Move] = [
    error(500, "call_upstream_request_error"),
    error(503, "no_available_workers"),
    http(200, "<html>"),
    http(200, ""),
    reset_mid_reply(),
    queued_abort(),
]
_LASTING: list[Move] = [
    error(400, "bad request"),
    http(404, "Not Found"),
    answer("Hello there.", mangle=lambda body: body["output_ids"].reverse()),
]


def _fate(ask: Ask) -> Move | None:
    """A fault for a fifth of the requests, one of ten of them fatal; the same for the same request of the same episode."""
    number = int.from_bytes(hashlib.sha256(f"{ask.key}/{ask.ordinal}".encode()).digest()[:4], "big")
    if number % 50 == 0:
        return _LASTING[number // 50 % len(_LASTING)]
    return _PASSING[number // 50 % len(_PASSING)] if number % 50 < 10 else None


async def test_five_hundred_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.policy.sampling._RESUME_PAUSE", 0.01)
    fatal: set[str] = set()

    def choose(ask: Ask) -> Move | None:
        move = _fate(ask)
        if move in _LASTING:
            fatal.add(ask.key)
        return move

    stage.router.choose = choose
    stage.router.script = GOLD
    args = stage.args(request_retries=12, drift_rate=0.0)
    samples = [
        StandaloneSample(
            index=i,
            group_index=i // 8,
            session_id=f"s{i}",
            metadata={"domain": "mock", "task_split": "base", "task_id": "create_task_1"},
        )
        for i in range(500)
    ]
    returned = await asyncio.gather(*(generate_with_tau2.generate(args, s, {"max_new_tokens": 256}) for s in samples))
    assert all(a is b for a, b in zip(returned, samples, strict=True))
    for sample in samples:
        check_sample(sample)
        expected = (Status.FAILED, "infrastructure_error", "infrastructure") if sample.session_id in fatal else PAID
        assert outcome(sample) == expected
    assert fatal
    assert Counter(s.status for s in samples) == {
        Status.COMPLETED: 500 - len(fatal),
        Status.FAILED: len(fatal),
    }
    paid = [s for s in samples if s.status is Status.COMPLETED]
    assert {s.reward for s in paid} == {1.0}
    for sample in paid:
        prompt = len(sample.tokens) - sample.response_length
        sampled = [t for t, m in zip(sample.tokens[prompt:], sample.loss_mask, strict=True) if m]
        assert sampled == [t for ids in stage.router.sent[sample.session_id] for t in ids], (
            "no token of another episode"
        )
    assert len(stage.results) == 500


async def test_the_greeting_alone(stage: Stage) -> None:
    """The shortest honest episode: one word of the policy."""
    sample = await stage.play([say("Your case is now complete.")])
    assert sample.status is Status.COMPLETED
    assert sample.reward == 0.0
