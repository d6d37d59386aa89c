"""An episode that is over is gone at once, however it failed: nothing of it waits for the garbage collector.

The trainer's process makes full collections rare. What only they could free would pile up: a conversation of 30,000 tokens
for each request that failed.
"""

from __future__ import annotations

import asyncio
import gc
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.world import domains
from tests.faults.conftest import Stage, Status
from tests.faults.servers import Move, UserMove, error, hang, http, reset_mid_reply
from tests.faults.test_user_faults import HELLO, UNUSABLE
from tests.fresh import forget_users

POLICY: dict[str, Move] = {
    "500": error(500, "out of order"),
    "400": error(400, "no"),
    "too long": error(400, "The input is longer than the model's context length"),
    "garbage": http(200, "<html>"),
    "reset": reset_mid_reply(),
    "silence": hang(),
}
USER: dict[str, UserMove] = {
    "400": UserMove(status=400),
    "401": UserMove(status=401),
    "500": UserMove(status=500),
    "silence": UserMove(silent=True),
    "an empty message": UNUSABLE["empty message"],
    "garbage": UNUSABLE["garbage"],
    "a list": UNUSABLE["a list"],
}


async def _left_over(stage: Stage, **episode: Any) -> list[object]:
    """What of three episodes only the collector can free: objects of the package, of τ² and of HTTP clients."""
    play = {**episode, "user_timeout": 0.2, "request_timeout": 0.2, "args": {"tau2_on_result": None}}
    for name in ("first", "second"):  # what stays for the life of the process
        forget_users()
        sample = await stage.play(name=name, **play)
    gc.collect()
    gc.disable()
    try:
        for name in ("third", "fourth", "fifth"):
            forget_users()
            sample = await stage.play(name=name, **play)
            assert sample.status is not Status.COMPLETED
        del sample
        await asyncio.sleep(0.05)  # connections that were given up are closed by the loop
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = gc.garbage[:]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    return [one for one in found if _belongs_to_an_episode(one)]


def _belongs_to_an_episode(one: object) -> bool:
    if isinstance(one, types.FrameType):
        return "tau2_slime/" in one.f_code.co_filename
    module = one.__module__ if isinstance(one, types.FunctionType) else type(one).__module__
    return (module or "").partition(".")[0] in ("tau2_slime", "tau2", "httpx", "openai", "litellm")


@pytest.fixture(autouse=True)
def thresholds_of_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAU2_SLIME_GC", "keep")  # frozen objects are not collected, and so not seen here


@pytest.mark.parametrize("fault", POLICY)
async def test_nothing_is_left_of_an_episode_whose_policy_fails(stage: Stage, fault: str) -> None:
    assert not await _left_over(stage, script=[POLICY[fault]] * 9)


@pytest.mark.parametrize("model", ["openai/test", "openai/gpt-4o-mini"])
@pytest.mark.parametrize("fault", USER)
async def test_nothing_is_left_of_an_episode_whose_user_fails(stage: Stage, fault: str, model: str) -> None:
    """Asked directly, and through litellm."""
    users = [HELLO, *[USER[fault]] * 9]
    assert not await _left_over(stage, users=users, user_model=model, user_retries=2)


@pytest.mark.parametrize("domain", ["mock", "retail", "telecom"])
async def test_nothing_is_left_of_an_episode_that_is_played_to_its_end(checkpoint: Path, domain: str) -> None:
    """The agent, the conversation, the ledger, the world and its databases go with the sample."""
    async with PolicyServer(checkpoint) as server:
        host, port = server.url.removeprefix("http://").split(":")
        args: Any = SimpleNamespace(
            hf_checkpoint=str(checkpoint), sglang_router_ip=host, sglang_router_port=int(port), tau2={}
        )
        task_id = domains.tasks(domain, "base")[1].id
        about = {"domain": domain, "task_split": "base", "task_id": task_id, "user_model": "scripted", "max_turns": 200}

        async def play() -> object:
            sample = StandaloneSample(index=0, session_id="s", metadata=dict(about))
            return (await generate(args, sample, {"max_new_tokens": 4096})).reward

        for _ in range(2):  # what stays for the life of the process
            await play()
        gc.collect()
        gc.disable()
        try:
            assert [await play() for _ in range(3)] == [1.0] * 3
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            found = gc.garbage[:]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not [one for one in found if _belongs_to_an_episode(one)]
