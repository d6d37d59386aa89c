"""Values built once for everyone, and work that an abort can stop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tau2_slime.runtime.loops import Once, PerLoop, offload, to_its_end


async def test_offloaded_work_leaves_the_loop_free() -> None:
    release = threading.Event()
    work = asyncio.ensure_future(offload(release.wait, 10))
    await asyncio.sleep(0)  # the loop runs on while the thread waits
    release.set()
    assert await work is True
    with pytest.raises(ZeroDivisionError):
        await offload(lambda: 1 // 0)


async def test_threads_wake_the_loop_once_for_all_that_they_finished_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, woken, done = asyncio.get_running_loop(), [], []
    wake = loop.call_soon_threadsafe

    def call_soon_threadsafe(*args: Any, **kwargs: Any) -> Any:
        woken.append(args)
        return wake(*args, **kwargs)

    monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
    work = [asyncio.ensure_future(offload(done.append, number)) for number in range(100)]
    await asyncio.sleep(0)
    while len(done) < 100:  # the loop is busy, as it is with other episodes
        time.sleep(0.001)  # noqa: ASYNC251
    assert await asyncio.gather(*work) == [None] * 100
    assert len(woken) < 10


async def test_a_call_whose_caller_is_cancelled_before_it_began_is_not_made() -> None:
    release, called = threading.Event(), []
    busy = [asyncio.ensure_future(offload(release.wait, 10)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(offload(called.append, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    assert await asyncio.gather(*busy) == [True, True]
    await offload(called.append, 2)
    assert called == [2]


# ---- Once ------------------------------------------------------------------------------------------------------------


async def test_a_hundred_callers_share_one_build() -> None:
    once: Once[object] = Once()
    builds = []

    def build() -> object:
        builds.append(threading.current_thread())
        time.sleep(0.01)
        return object()

    values = await asyncio.gather(*(once.get("key", build) for _ in range(100)))
    assert len(builds) == 1 and builds[0] is not threading.current_thread()
    assert len({id(value) for value in values}) == 1
    assert await once.get("other", build) is not values[0]
    assert await once.get("key", build) is values[0]


def test_two_event_loops_share_one_build() -> None:
    once: Once[object] = Once()
    builds, values, together = [], [], threading.Barrier(2)

    def build() -> object:
        builds.append(1)
        time.sleep(0.05)
        return object()

    def run() -> None:
        async def main() -> None:
            together.wait()
            values.extend(await asyncio.gather(*(once.get("key", build) for _ in range(50))))

        asyncio.run(main())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert len(builds) == 1
    assert len(values) == 100 and len({id(value) for value in values}) == 1


async def test_a_failed_build_is_tried_again() -> None:
    once: Once[str] = Once()
    outcomes: list[Exception | str] = [OSError("first"), "second"]

    def build() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    failed = await asyncio.gather(*(once.get("key", build) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(value, OSError) for value in failed) >= 1
    assert await once.get("key", build) == "second"


async def test_a_cancelled_waiter_cancels_nobody_else() -> None:
    once: Once[str] = Once()
    release, started = threading.Event(), threading.Event()

    def build() -> str:
        started.set()
        release.wait(10)
        return "built"

    first = asyncio.ensure_future(once.get("key", build))
    others = [asyncio.ensure_future(once.get("key", build)) for _ in range(3)]
    await asyncio.to_thread(started.wait, 10)
    first.cancel()
    others[0].cancel()
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*others[1:]) == ["built", "built"]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await once.get("key", build) == "built"


async def test_a_waiter_cancelled_before_the_build_starts_does_not_stop_it() -> None:
    """Both threads of the pool are busy, so the build still waits in the queue."""
    once: Once[str] = Once()
    release = threading.Event()
    busy = [asyncio.ensure_future(offload(release.wait, 10)) for _ in range(4)]
    await asyncio.sleep(0)
    first = asyncio.ensure_future(once.get("key", lambda: "built"))
    second = asyncio.ensure_future(once.get("key", lambda: "built"))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    release.set()
    assert await second == "built"
    await asyncio.gather(*busy)
    assert await once.get("key", lambda: "again") == "built"


async def test_a_loop_that_ends_while_it_waits_spoils_nothing() -> None:
    once: Once[str] = Once()
    release = threading.Event()

    def build() -> str:
        release.wait(10)
        return "built"

    def impatient() -> None:
        async def main() -> None:
            await asyncio.wait_for(once.get("key", build), 0.02)

        with pytest.raises(TimeoutError):
            asyncio.run(main())

    thread = threading.Thread(target=impatient)
    thread.start()
    await asyncio.to_thread(thread.join)
    waiter = asyncio.ensure_future(once.get("key", build))
    await asyncio.sleep(0)
    release.set()
    assert await waiter == "built"


def test_per_loop_values_belong_to_their_loop() -> None:
    values: PerLoop[object] = PerLoop(object)

    async def twice() -> tuple[object, object]:
        return values.get(), values.get()

    one, two = asyncio.run(twice()), asyncio.run(twice())
    assert one[0] is one[1] and two[0] is two[1] and one[0] is not two[0]


# ---- garbage collection ------------------------------------------------------------------------------------------------


def collector(*lines: str, setting: str | None = None) -> dict[str, Any]:
    """What the garbage collector is set to in a fresh process after ``lines``, and what the log says of it."""
    program = "\n".join(
        (
            "import gc, json, logging, sys",
            "logging.basicConfig(level=logging.INFO, stream=sys.stderr)",
            "from tau2_slime.runtime.garbage_collection import builds_what_stays",
            *lines,
            "print(json.dumps({'thresholds': gc.get_threshold(), 'frozen': gc.get_freeze_count()}))",
        )
    )
    environ = {name: value for name, value in os.environ.items() if name != "TAU2_SLIME_GC"}
    if setting is not None:
        environ["TAU2_SLIME_GC"] = setting
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environ, check=True)
    return {**json.loads(done.stdout), "log": done.stderr.splitlines()}


BUILD = "with builds_what_stays(): more = [[] for _ in range(100_000)]"


def test_what_stays_is_spared_the_thresholds_are_the_hosts_and_the_log_says_so_once() -> None:
    found = collector("gc.set_threshold(700, 10, 10)", BUILD, BUILD.replace("more", "others"))
    assert found["thresholds"] == [700, 10, 10]
    assert found["frozen"] > 200_000
    (line,) = found["log"]
    assert "TAU2_SLIME_GC=keep" in line and "(700, 10, 10)" in line


def test_nothing_is_collected_while_it_is_built() -> None:
    counting = "seen = []; gc.callbacks.append(lambda phase, _: seen.append(phase)); gc.collect(); seen.clear()"
    found = collector(counting, BUILD + "; gc.callbacks.clear()", "print(len(seen), file=sys.stderr)")
    assert found["log"][-1] == "0"
    assert collector(BUILD, "assert gc.isenabled()")["frozen"] > 100_000
    assert collector("gc.disable()", BUILD, "assert not gc.isenabled()")["frozen"] > 100_000


def test_full_collections_become_rare_where_the_host_asks_for_it() -> None:
    found = collector("gc.set_threshold(700, 10, 10)", BUILD, setting="rare")
    young, middle, old = found["thresholds"]
    assert young == 700 and middle < 10 and middle * old >= 1000
    assert str(tuple(found["thresholds"])) in found["log"][0]


@pytest.mark.parametrize("chosen", [(700, 10, 50), (10_000, 50, 100)])
def test_thresholds_that_the_host_has_chosen_stay(chosen: tuple[int, int, int]) -> None:
    assert tuple(collector(f"gc.set_threshold{chosen}", BUILD, setting="rare")["thresholds"]) == chosen


def test_a_host_may_keep_its_collector_as_it_is() -> None:
    found = collector("gc.set_threshold(700, 10, 10)", BUILD, setting="keep")
    assert found == {"thresholds": [700, 10, 10], "frozen": 0, "log": []}


async def test_what_must_be_finished_is_finished_before_its_caller_is_cancelled() -> None:
    done = []

    async def write() -> None:
        await asyncio.sleep(0.05)
        done.append("written")

    caller = asyncio.ensure_future(to_its_end(write()))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == ["written"]


async def test_what_must_be_finished_says_why_it_could_not_be() -> None:
    async def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await to_its_end(fail())
