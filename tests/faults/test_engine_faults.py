"""The policy's server fails: a retry where a retry can cure it, else FAILED, the infrastructure's fault, no gradient."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clock import forward
from tests.faults.conftest import GOLD, PAID, Stage, Status, detail, outcome, stats
from tests.faults.servers import (
    Move,
    after,
    answer,
    error,
    hang,
    http,
    reset_mid_reply,
    say,
)

BROKEN = (Status.FAILED, "infrastructure_error", "infrastructure")

HTML = "<html><body>Bad gateway</body></html>"


async def test_gold_play_is_paid(stage: Stage) -> None:
    sample = await stage.play()
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert sample.weight_versions == ["7", "7"]
    assert stats(sample)["engine_retries"] == 0


CURABLE: dict[str, Move] = {
    "500": error(500, "call_upstream_request_error"),
    "503 no_available_workers": error(503, "no_available_workers"),
    "429": error(429, "too many requests"),
    "408": error(408, "queue is full"),
    "502 html": http(502, HTML, "text/html"),
    "200 html": http(200, HTML, "text/html"),
    "garbage": http(200, "\x00\x01 not json"),
    "a list": http(200, "[{}]"),
    "null": http(200, "null"),
    "a number": http(200, "17"),
    "an endless number": http(200, "1" * 10_000),
    "nested without end": http(200, "[" * 200_000),
    "empty body": http(200, ""),
    "truncated json": http(200, '{"text": "hel'),
    "an error with status 200": http(200, '{"error": {"message": "worker died"}}'),
    "connection reset in mid-reply": reset_mid_reply(),
    "no meta_info": answer("hi", mangle=lambda body: {"text": "hi", "output_ids": [1]}),
    "meta_info of another form": answer("hi", mangle=lambda body: {**body, "meta_info": [1]}),
    "no finish_reason": answer("hi", mangle=lambda body: body["meta_info"].pop("finish_reason") and None),
    "finish_reason null": answer("hi", mangle=lambda body: body["meta_info"].update(finish_reason=None)),
    "finish_reason a text": answer("hi", mangle=lambda body: body["meta_info"].update(finish_reason="stop")),
}


@pytest.mark.parametrize("fault", CURABLE)
async def test_a_passing_fault_is_retried(stage: Stage, fault: str) -> None:
    sample = await stage.play([GOLD[0], CURABLE[fault], CURABLE[fault], *GOLD[1:]])
    assert outcome(sample) == PAID
    assert sample.reward == 1.0
    assert stats(sample)["engine_retries"] == 2
    first, again = stage.router.asks[1], stage.router.asks[3]
    assert first.payload == again.payload


@pytest.mark.parametrize("fault", CURABLE)
async def test_a_lasting_fault_fails_the_episode(stage: Stage, fault: str) -> None:
    sample = await stage.play([GOLD[0], *[CURABLE[fault]] * 9], request_retries=2)
    assert outcome(sample) == BROKEN
    assert len(stage.router.asks) == 1 + 3
    assert "3 tries" in detail(sample)


REFUSED: dict[str, Move] = {
    "400": error(400, "temperature must be non-negative"),
    "401": error(401, "who are you"),
    "404": http(404, "Not Found", "text/plain"),
    "405": http(405, "Method Not Allowed", "text/plain"),
    "422": http(422, "Failed to deserialize the JSON body", "text/plain"),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_a_refused_request_is_not_repeated(stage: Stage, fault: str) -> None:
    sample = await stage.play([GOLD[0], *[REFUSED[fault]] * 9])
    assert outcome(sample) == BROKEN
    assert len(stage.router.asks) == 2
    assert fault in detail(sample)


@pytest.mark.parametrize(
    "message",
    [
        "The input (17000 tokens) is longer than the model's context length (16384 tokens).",
        "Requested token count exceeds the model's maximum context length of 16384 tokens.",
    ],
)
async def test_the_servers_word_about_its_context_is_a_limit(stage: Stage, message: str) -> None:
    sample = await stage.play([GOLD[0], *[error(400, message)] * 9])
    assert outcome(sample) == (Status.TRUNCATED, "context_length", "limit")
    assert len(stage.router.asks) == 2
    assert any(sample.loss_mask)


def _meta(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["meta_info"].update(changes)


def _first_entry(value: Any) -> Callable[[dict[str, Any]], None]:
    def mangle(body: dict[str, Any]) -> None:
        body["meta_info"]["output_token_logprobs"][0][0] = value

    return mangle


def _first_id(value: Any) -> Callable[[dict[str, Any]], None]:
    def mangle(body: dict[str, Any]) -> None:
        body["meta_info"]["output_token_logprobs"][0][1] = value

    return mangle


UNTRUE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no log-probs": lambda body: body["meta_info"].pop("output_token_logprobs") and None,
    "log-probs null": _meta(output_token_logprobs=None),
    "log-probs a number": _meta(output_token_logprobs=5),
    "entries of another form": _meta(output_token_logprobs=[1, 2, 3]),
    "one log-prob too few": lambda body: body["meta_info"]["output_token_logprobs"].pop() and None,
    "log-prob NaN": _first_entry(float("nan")),
    "log-prob null": _first_entry(None),
    "log-prob minus infinity": _first_entry(float("-inf")),
    "log-prob above zero": _first_entry(0.5),
    "id infinite": _first_id(float("inf")),
    "id no whole number": _first_id(752.5),
    "id negative": _first_id(-3),
    "ids disagree": lambda body: body["output_ids"].reverse(),
    "output_ids a number": lambda body: body.update(output_ids=3),
    "prompt_tokens wrong": lambda body: body["meta_info"].update(prompt_tokens=body["meta_info"]["prompt_tokens"] + 1),
    "prompt_tokens a word": _meta(prompt_tokens="many"),
    "completion_tokens wrong": _meta(completion_tokens=1),
    "stop without a token": lambda body: (
        body.update(output_ids=[]),
        body["meta_info"].update(output_token_logprobs=[], completion_tokens=0),
        None,
    )[-1],
    "stopped on another token": _meta(finish_reason={"type": "stop", "matched": 1}),
    "logits were not numbers": _meta(finish_reason={"type": "stop", "matched": "NaN happened"}),
}


@pytest.mark.parametrize("fault", UNTRUE)
async def test_an_untrue_reply_never_becomes_a_token(stage: Stage, fault: str) -> None:
    lie = answer("Let me see what I can do for you.", mangle=UNTRUE[fault])
    sample = await stage.play([GOLD[0], *[lie] * 9])
    assert outcome(sample) == BROKEN
    assert len(stage.router.asks) == 2, "the server would say it again: no retry"
    assert stage.results[0].ledger.sampled_count == len(stage.router.sent["episode"][0])


async def test_weight_version_may_be_missing(stage: Stage) -> None:
    stage.router.version = None
    sample = await stage.play()
    assert outcome(sample) == PAID
    assert sample.weight_versions == []


async def test_no_answer_is_a_time_out(stage: Stage) -> None:
    sample = await stage.play(
        [GOLD[0], *[after(lambda: forward(61), hang())] * 9], request_timeout=60, request_retries=1
    )
    assert outcome(sample) == BROKEN
    assert len(stage.router.asks) == 3
    assert "no answer within 60 s" in detail(sample)


async def test_an_answer_after_a_time_out(stage: Stage) -> None:
    sample = await stage.play([after(lambda: forward(61), hang()), *GOLD], request_timeout=60)
    assert outcome(sample) == PAID
    assert stats(sample)["engine_retries"] == 1


async def test_a_worker_killed_for_good(stage: Stage) -> None:
    """The connection breaks in mid-reply and nothing listens any more."""
    tasks: list[asyncio.Task[None]] = []
    dead = after(lambda: tasks.append(asyncio.create_task(stage.router.stop())), reset_mid_reply())
    sample = await stage.play([GOLD[0], dead])
    assert outcome(sample) == BROKEN
    await asyncio.gather(*tasks)
    assert sample.response_length > 1, "what was sampled before stays visible"


async def test_a_worker_that_comes_back(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tau2_slime.tokens.engine.BACKOFF_FIRST", 0.2)
    monkeypatch.setattr("tau2_slime.tokens.engine.BACKOFF_MAX", 0.4)
    tasks: list[asyncio.Task[None]] = []

    async def restart() -> None:
        await stage.router.stop()
        await asyncio.sleep(0.5)
        await stage.router.start()

    dead = after(lambda: tasks.append(asyncio.create_task(restart())), reset_mid_reply())
    sample = await stage.play([GOLD[0], dead, *GOLD[1:]], request_retries=30)
    await asyncio.gather(*tasks)
    assert outcome(sample) == PAID
    assert sample.reward == 1.0


async def test_one_broken_episode_leaves_the_others_alone(stage: Stage) -> None:
    stage.router.choose = lambda ask: error(404, "gone") if ask.key == "broken" else None
    names = ["one", "broken", "two", "three"]
    samples = await asyncio.gather(*(stage.play(name=name) for name in names))
    assert [outcome(sample) for sample in samples] == [PAID, BROKEN, PAID, PAID]


@pytest.mark.surprise
async def test_an_unlisted_exception_of_the_client_is_blamed_and_survived(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explode(*_: Any, **__: Any) -> Any:
        raise KeyError("a bug of ours")

    monkeypatch.setattr("tau2_slime.tokens.engine.SglangEngine._post", explode)
    sample = await stage.play()
    assert outcome(sample) == BROKEN
    assert "a bug of ours" in detail(sample)


async def test_the_request_is_one_that_sglang_accepts(stage: Stage) -> None:
    await stage.play([*GOLD[:1], say("Anything else?")], max_new_tokens=512)
    for ask in stage.router.asks:
        assert set(ask.payload) == {"input_ids", "sampling_params", "return_logprob"}
        assert ask.payload["return_logprob"] is True
        assert ask.params["max_new_tokens"] == 512
        assert stage.router.id_of("<|im_end|>") in ask.params["stop_token_ids"]
    json.dumps(stage.router.asks[0].payload)
