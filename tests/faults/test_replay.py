"""Top-p replay and routed-expert replay: every sample of a batch carries the fields, whatever became of its episode."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.tokens import replay_probe
from tests.faults.conftest import GOLD, PAID, Flag, Stage, Status, detail, outcome, stats
from tests.faults.servers import Ask, Router, UserMove, after, partial, queued_abort, say

SIZES = {"num_layers": 3, "moe_router_topk": 2, "num_experts": 8}
BOTH = {"rollout_top_p": 0.9, "use_rollout_routing_replay": True, **SIZES}


@pytest.fixture(autouse=True)
def _nothing_is_known_of_any_server() -> Iterator[None]:
    replay_probe._proved.clear()
    replay_probe._last_answers.clear()
    yield


def _b64(numbers: list[int]) -> str:
    return base64.b64encode(array("i", numbers).tobytes()).decode()


def generous(router: Router) -> None:
    """Let the scripted router answer as slime's patched engine does, with what was asked for."""
    plain = router.body

    def body(ask: Ask, ids: list[int], finish: dict[str, Any]) -> dict[str, Any]:
        reply = plain(ask, ids, finish)
        if (ask.params.get("custom_params") or {}).get("return_top_p_token_ids") and ids:
            reply["meta_info"]["top_p_token_ids"] = _b64([token + k for token in ids for k in (0, 1)])
            reply["meta_info"]["top_p_token_offsets"] = _b64([2 * k for k in range(len(ids) + 1)])
        if ask.payload.get("return_routed_experts"):
            rows = len(ask.ids) + len(ids) - 1 - ask.payload["routed_experts_start_len"]
            reply["meta_info"]["routed_experts"] = _b64([7, 6] * 3 * rows)
        return reply

    router.body = body  # type: ignore[method-assign]
    router.choose = lambda ask: say("x") if ask.key == "tau2-slime-probe" else None


def check_fields(sample: Any) -> None:
    """What slime asserts before it makes a batch (and dies of)."""
    ids, offsets = sample.rollout_top_p_token_ids, sample.rollout_top_p_token_offsets
    assert len(offsets) == sample.response_length + 1 and offsets[0] == 0 and offsets[-1] == len(ids)
    rows = sample.rollout_routed_experts
    assert rows.shape == (len(sample.tokens) - 1, 3, 2) and rows.dtype == np.int32
    assert all(np.count_nonzero(rows[:, layer]) for layer in range(3)), "slime refuses a layer that is all zero"
    assert ((rows >= 0) & (rows < 8)).all()


def check_kept(sample: Any) -> None:
    ids, offsets = sample.rollout_top_p_token_ids, sample.rollout_top_p_token_offsets
    response = sample.tokens[-sample.response_length :]
    for position, (token, mask) in enumerate(zip(response, sample.loss_mask, strict=True)):
        assert ids[offsets[position] : offsets[position + 1]].tolist() == ([token, token + 1] if mask else [])


async def test_a_played_episode_carries_both(stage: Stage) -> None:
    generous(stage.router)
    sample = await stage.play((queued_abort(), partial("Let me see"), *GOLD), args=BOTH)
    assert outcome(sample) == PAID
    check_fields(sample)
    check_kept(sample)


async def test_a_failed_episode_carries_stand_ins(stage: Stage) -> None:
    generous(stage.router)
    lost = [
        await stage.play(args=BOTH, task={"task_id": "no such task"}),
        await stage.play(args=BOTH, user_model="openai/test", user_api_key_var="NOT_SET_ANYWHERE"),
        await stage.play([say("Yes?")], args=BOTH, users=[UserMove(content="Hello."), *[UserMove(status=401)] * 9]),
    ]
    for sample in lost:
        assert sample.status is Status.FAILED
        check_fields(sample)
    assert len(lost[-1].tokens) > 100, "this one had begun"


async def test_a_server_without_them_is_asked_once_by_a_hundred_episodes(stage: Stage) -> None:
    samples = await asyncio.gather(*(stage.play(name=f"s{i}", args=BOTH) for i in range(100)))
    assert len(stage.router.asks) == 1
    assert stage.router.asks[0].params["max_new_tokens"] == 1
    for sample in samples:
        assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
        assert "stock sglang-router drops" in detail(sample)
        check_fields(sample)


async def test_missing_sizes_of_the_model_are_named(stage: Stage) -> None:
    sample = await stage.play(args={"use_rollout_routing_replay": True, "num_layers": None})
    assert outcome(sample) == (Status.FAILED, "config_error", "infrastructure")
    assert "--num-layers and --moe-router-topk" in detail(sample)


async def test_nothing_is_asked_for_without_the_flags(stage: Stage) -> None:
    sample = await stage.play(args={"rollout_top_p": 1.0, **SIZES})
    assert outcome(sample) == PAID
    assert sample.rollout_top_p_token_ids is sample.rollout_top_p_token_offsets is sample.rollout_routed_experts is None
    assert all("return_routed_experts" not in ask.payload for ask in stage.router.asks)


async def test_a_seed_reaches_every_call(stage: Stage) -> None:
    stage.router.script = GOLD
    sample = await generate(stage.args(), stage.sample(), {"max_new_tokens": 64, "sampling_seed": 11})
    assert outcome(sample) == PAID
    assert [ask.params["sampling_seed"] for ask in stage.router.asks] == [11, 11]


async def test_an_episode_that_slime_interrupted_brings_its_fields_back(stage: Stage) -> None:
    generous(stage.router)
    flag = Flag()
    args = stage.args()
    for name, value in {**BOTH, "tau2_aborted": flag}.items():
        setattr(args, name, value)
    stage.router.script = (say("One moment, please."), after(flag.set, partial("Let me see")), *GOLD)
    sample = await stage.run(args, stage.sample())
    assert sample.status is Status.ABORTED
    before = sample.response_length
    check_fields(sample)
    check_kept(sample)

    flag.on = False
    asked = len(stage.router.asks)
    await stage.run(args, sample)
    assert sample.status is Status.COMPLETED and stats(sample)["resumes"] == 1
    assert sample.response_length > before
    assert sum(sample.loss_mask) == len(sample.rollout_top_p_token_ids) / 2
    check_fields(sample)
    check_kept(sample)
    starts = [ask.payload["routed_experts_start_len"] for ask in stage.router.asks[asked:]]
    assert starts[0] == 0 and all(starts[1:]), "what came back is asked for once more, in full; then only what is new"
