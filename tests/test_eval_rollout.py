"""Evaluation beside fully-async rollouts: one limit, two event loops."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from typing import Any

import pytest

from tau2_slime.eval_rollout import LoopSemaphore, generate_rollout


def contend(semaphore: Any, episodes: int, most: list[int]) -> BaseException | None:
    """Hold ``semaphore`` from ``episodes`` tasks of a new loop; the error, if there is one."""

    async def play() -> None:
        under_way = 0

        async def episode() -> None:
            nonlocal under_way
            async with semaphore:
                under_way += 1
                most.append(under_way)
                await asyncio.sleep(0.01)
                under_way -= 1

        await asyncio.gather(*(episode() for _ in range(episodes)))

    try:
        asyncio.run(play())
    except RuntimeError as error:
        return error
    return None


@pytest.mark.parametrize("own", [False, True], ids=["asyncio.Semaphore", "LoopSemaphore"])
def test_two_loops_wait_for_one_limit(own: bool) -> None:
    """The first case is why the second exists."""
    semaphore = LoopSemaphore(2) if own else asyncio.Semaphore(2)
    most: list[int] = []
    errors: list[BaseException | None] = []
    errors.append(contend(semaphore, 6, most))
    worker = threading.Thread(target=lambda: errors.append(contend(semaphore, 6, most)))
    worker.start()
    worker.join()
    if own:
        assert errors == [None, None]
        assert max(most) == 2
    else:
        assert "different event loop" in str(errors[1])


ARGS = types.SimpleNamespace(sglang_server_concurrency=3, rollout_num_gpus=4, rollout_num_gpus_per_engine=2)
ELSEWHERE = types.SimpleNamespace(sglang_server_concurrency=3, rollout_num_gpus=None, rollout_num_gpus_per_engine=None)


@pytest.mark.parametrize(
    ("args", "engines", "limit"),
    [
        (ARGS, {}, 6),
        (types.SimpleNamespace(**{**vars(ARGS), "rollout_num_gpus": 1}), {}, 1),
        (ELSEWHERE, {"get_rollout_num_engines": lambda args: 5}, 15),
        (ELSEWHERE, {"get_rollout_num_engines": lambda args: 0}, 1),
    ],
    ids=["v0.3.0", "an engine on more GPUs than there are", "engines elsewhere", "no engine, as slime counts"],
)
def test_slimes_evaluation_runs_under_the_new_limit(
    monkeypatch: pytest.MonkeyPatch, args: Any, engines: dict[str, Any], limit: int
) -> None:
    state = types.SimpleNamespace(semaphore=asyncio.Semaphore(1))
    called = []
    rollout = types.SimpleNamespace(
        GenerateState=lambda args: state,
        generate_rollout=lambda *args, **kwargs: called.append((args, kwargs, state.semaphore)) or "output",
        **engines,
    )
    monkeypatch.setitem(sys.modules, "slime", types.ModuleType("slime"))
    package = types.ModuleType("slime.rollout")
    monkeypatch.setitem(sys.modules, "slime.rollout", package)
    monkeypatch.setitem(sys.modules, "slime.rollout.sglang_rollout", rollout)
    assert generate_rollout(args, 7, "source", evaluation=True) == "output"
    (positional, keywords, semaphore) = called[0]
    assert positional == (args, 7, "source") and keywords == {"evaluation": True}
    most: list[int] = []
    assert contend(semaphore, 20, most) is None
    assert max(most) == limit
    generate_rollout(args, 8, "source", evaluation=True)
    assert called[1][2] is semaphore  # what holds it goes on holding it
