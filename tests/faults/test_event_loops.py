"""slime drives episodes from more than one event loop: its rollout thread, the fully-async worker, evaluation."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from aiohttp import web

from tau2_slime import generate_with_tau2
from tau2_slime.runtime import loops, sessions
from tau2_slime.runtime.abort import UntilAbort
from tests.faults.conftest import PAID, Stage, check_sample, outcome
from tests.faults.servers import UserMove, after, hang, say

HELLO = UserMove(content="Please create the task 'Important Meeting' for user_1.")


async def _episodes(stage: Stage, prefix: str, count: int) -> list[Any]:
    args = stage.args(user_model="openai/test", user_base_url=stage.user.url, user_retries=0, request_retries=0)
    samples = [stage.sample(f"{prefix} {i}") for i in range(count)]
    await asyncio.gather(*(generate_with_tau2.generate(args, s, {"max_new_tokens": 99}) for s in samples))
    return samples


# litellm's own logging queue, which it builds anew for each loop and drops.
@pytest.mark.filterwarnings("ignore:coroutine 'Logging.async_success_handler' was never awaited")
async def test_three_loops_at_once_and_one_after_another(stage: Stage) -> None:
    """No connection, lock or client of one loop is used by another: without a retry, nothing may fail."""
    stage.router.choose = lambda ask: say("Is there anything else?")
    stage.user.script = [HELLO] * 1000
    for round_ in range(2):
        groups = await asyncio.gather(
            _episodes(stage, f"{round_} here", 8),
            *(asyncio.to_thread(asyncio.run, _episodes(stage, f"{round_} thread {i}", 8)) for i in range(2)),
        )
        for sample in (sample for group in groups for sample in group):
            check_sample(sample)
            assert outcome(sample)[1:] == ("max_turns", "limit"), sample.metadata["tau2"]["detail"]


async def test_a_loop_that_dies_takes_no_other_with_it(stage: Stage) -> None:
    """Evaluation ends, or its process is told to stop, while its episodes wait for the server."""
    asked = threading.Event()
    stage.router.choose = lambda ask: after(asked.set, hang()) if ask.key.startswith("dying") else None

    async def die() -> None:
        episodes = asyncio.ensure_future(_episodes(stage, "dying", 4))
        assert await asyncio.to_thread(asked.wait, 30)
        episodes.cancel()
        with pytest.raises(asyncio.CancelledError):
            await episodes

    stage.user.script = [HELLO] * 4
    await asyncio.to_thread(asyncio.run, die())
    sample = await stage.play()
    assert outcome(sample) == PAID


async def test_later_episodes_of_a_domain_need_no_thread(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that works takes Python's lock from the loop. What is known already is a millisecond's work."""
    await stage.play(name="the first", drift_rate=0.0)
    submitted: list[Any] = []
    submit = loops._pool.submit
    monkeypatch.setattr(loops._pool, "submit", lambda *a, **k: (submitted.append(a), submit(*a, **k))[1])
    assert outcome(await stage.play(name="the second", drift_rate=0.0)) == PAID
    assert submitted == []


async def test_episodes_that_go_on_together_leave_the_loop_time_for_others() -> None:
    """Hundreds of answers arrive at once: sockets and timers have their turn every few milliseconds, not after the last."""
    ready = asyncio.Event()
    worked: list[int] = [0]  # sections of work in each round of the loop

    async def episode() -> None:
        async with UntilAbort(lambda: False):
            await ready.wait()
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass
        worked[-1] += 1

    async def another_round() -> None:
        while True:
            await asyncio.sleep(0)
            worked.append(0)

    others = asyncio.ensure_future(another_round())
    episodes = [asyncio.ensure_future(episode()) for _ in range(100)]
    await asyncio.sleep(0.05)
    ready.set()
    await asyncio.gather(*episodes)
    others.cancel()
    assert sum(worked) == 100
    assert max(worked) <= max(loops.ROUND / 0.002 + 1, loops.WOKEN)


async def test_an_episode_that_is_cancelled_while_it_waits_holds_up_no_other() -> None:
    went_on: list[int] = []

    async def episode(number: int) -> None:
        await loops.take_turn()
        end = time.perf_counter() + 2 * loops.ROUND
        while not went_on and time.perf_counter() < end:
            pass  # the first one takes all of its round, so that the others wait
        went_on.append(number)

    episodes = [asyncio.ensure_future(episode(number)) for number in range(50)]
    await asyncio.sleep(0)
    for one in episodes[1::2]:
        one.cancel()
    await asyncio.gather(*episodes, return_exceptions=True)
    assert went_on == list(range(0, 50, 2))  # in the order in which they came


async def test_work_in_threads_hands_over_soon_and_leaves_the_process_as_it_was() -> None:
    before = sys.getswitchinterval()
    together = threading.Barrier(2)

    def work() -> float:
        together.wait(30)
        return sys.getswitchinterval()

    during = await asyncio.gather(loops.offload(work), loops.offload(work))
    assert [round(interval, 6) for interval in during] == [loops.SWITCH_INTERVAL] * 2
    with pytest.raises(ZeroDivisionError):
        await loops.offload(lambda: 1 / 0)
    assert sys.getswitchinterval() == before


def test_connections_end_with_their_loop() -> None:
    """Whoever calls ``asyncio.run`` need not know of them: nothing is left open, and nothing keeps the loop alive."""

    async def ask() -> tuple[Any, Any]:
        router = web.Application()
        runner = web.AppRunner(router)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        for session in (sessions.inside(), sessions.outside()):
            async with session.get(url) as reply:
                assert reply.status == 404
        assert sessions.inside() is sessions.inside()
        await runner.cleanup()
        return (sessions.inside(), sessions.outside()), weakref.ref(asyncio.get_running_loop())

    ended, loop = asyncio.run(ask())
    assert [session.closed for session in ended] == [True, True]
    del ended
    gc.collect()
    assert loop() is None


def test_the_first_episode_imports_nothing_on_the_event_loop() -> None:
    """The door itself is there before a loop runs; what else it needs takes up to seconds."""
    program = """
import asyncio, enum, json, sys, threading
from types import SimpleNamespace
from tau2_slime import generate_with_tau2
on_the_loop = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is threading.main_thread():
            on_the_loop.append(name)

def nothing():
    raise ImportError("this is as far as it goes")

sys.meta_path.insert(0, Watch())
generate_with_tau2._import_everything = nothing

class Sample:
    Status = enum.Enum("Status", "PENDING COMPLETED TRUNCATED ABORTED FAILED")
    status = Status.PENDING
    prompt, metadata, tokens, loss_mask, response, response_length = "0", {}, [], None, "", 0
    rollout_log_probs = reward = session_id = group_index = index = None
    remove_sample, weight_versions = False, []

sample = Sample()
asyncio.run(generate_with_tau2.generate(SimpleNamespace(), sample, {}))
print(json.dumps([on_the_loop, sample.metadata["tau2"]["detail"], "pydantic" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported, detail, has_pydantic = json.loads(done.stdout.splitlines()[-1])
    assert "as far as it goes" in detail and has_pydantic
    assert [name for name in imported if not name.startswith("asyncio")] == []
