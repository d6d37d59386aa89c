"""What an episode costs beside the models: ``python benchmarks/world.py [--domain airline ...] [--quick]``

Environment, tools and scoring of gold trajectories against τ²'s own code in the same run: CPU time (medians), longest block,
memory, episodes a second, and the first episode of a process. Ratios travel between machines; seconds do not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from benchmarks import scripted_play as play
from tau2_slime.outcome import Termination
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.environment import World

AT_ONCE = 256
GOALS = {"airline": 400, "retail": 200, "telecom": 8}


class Clock:
    """CPU seconds of this thread by part of the work; keeps every measurement."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = defaultdict(list)

    def __call__(self, part: str, work: Callable[[], Any]) -> Any:
        begin = time.thread_time()
        result = work()
        self.seen[part].append(time.thread_time() - begin)
        return result


def our_episode(domain: str, task: Any, script: play.Script, clock: Clock) -> None:
    t = tau2_compat.load()
    begin = time.thread_time()
    world = clock("environment", lambda: World(domain, "base", task))
    clock("initial state", lambda: world.set_state([]))
    messages = recorded(script, lambda call: clock("one tool call", lambda: world.call(call)[0]))
    world.environment.sync_tools()
    clock(
        "scoring",
        lambda: scoring.score(world, messages, {}, Termination.USER_STOP, started=t.get_now(), duration=0.0),
    )
    clock.seen["episode"].append(time.thread_time() - begin)


def stock_episode(domain: str, task: Any, script: play.Script, clock: Clock) -> None:
    t = tau2_compat.load()
    begin = time.thread_time()
    environment = clock("environment", lambda: t.registry.get_env_constructor(domain)())
    initial = task.initial_state
    clock(
        "initial state",
        lambda: environment.set_state(
            initialization_data=initial.initialization_data if initial else None,
            initialization_actions=initial.initialization_actions if initial else None,
            message_history=[],
        ),
    )
    messages = recorded(script, lambda call: clock("one tool call", lambda: environment.get_response(call)))
    clock("scoring", lambda: play.evaluate(domain, task, messages))
    clock.seen["episode"].append(time.thread_time() - begin)


def recorded(script: play.Script, run: Callable[[Any], Any]) -> list[Any]:
    """The trajectory of the script's tool calls and its last text."""
    messages = []
    for line in script.calls:
        said = play.message(line, line["requestor"])
        messages += [said, run(said.tool_calls[0])]
    return [*messages, play.message(script.agent[-1], "assistant")]


def floor_episode(domain: str, task: Any, script: play.Script, environment: Any) -> float:
    """CPU seconds of the bare tool functions, in an environment that is there already."""
    spent = 0.0
    for line in script.calls:
        begin = time.thread_time()
        with contextlib.suppress(Exception):  # some gold calls are answered by an error
            environment.make_tool_call(line["name"], requestor=line["requestor"], **line["arguments"])
        spent += time.thread_time() - begin
    return spent


def millis(values: list[float]) -> str:
    return f"{1000 * statistics.median(values):10.3f}"


def compare_cpu(domain: str, tasks: int, stock_tasks: int) -> None:
    ours, theirs = Clock(), Clock()
    chosen = play.scripts(domain, tasks)
    for task, script in chosen:  # the domain is read, gold end states are computed: once a process
        our_episode(domain, task, script, Clock())
    few = chosen[:: max(1, len(chosen) // stock_tasks)][:stock_tasks]
    stock_episode(domain, *few[0], Clock())
    for task, script in few:
        stock_episode(domain, task, script, theirs)
    for _ in range(3):
        for task, script in chosen:
            our_episode(domain, task, script, ours)
    bare = tau2_compat.build_environment(domain, solo=False, env_kwargs={})
    floor = [floor_episode(domain, task, script, bare) for task, script in chosen]
    print(f"\n{domain}: CPU ms of one gold episode, medians of {len(chosen)} tasks (τ²: {len(few)})")
    print(f"  {'':16}{'τ²':>10}{'here':>11}{'ratio':>10}")
    for part in ("environment", "initial state", "one tool call", "scoring", "episode"):
        ratio = statistics.median(theirs.seen[part]) / statistics.median(ours.seen[part])
        goal = f"   goal {GOALS[domain]}" if part == "episode" and domain in GOALS else ""
        print(f"  {part:16}{millis(theirs.seen[part])}{millis(ours.seen[part]):>11}{ratio:9.0f}x{goal}")
    print(f"  {'bare tools':16}{'':10}{millis(floor):>11}   (the floor: the tool functions alone)")


def compare_own_database(domain: str, tasks: int = 20, stock_tasks: int = 2) -> None:
    """Tasks that bring one more record, and tasks that bring the whole database, beside the same tasks without."""
    model = tau2_compat.build_environment(domain, solo=False, env_kwargs={}).tools.db
    whole = model.model_dump(mode="json")
    name = {"retail": "orders", "airline": "reservations"}.get(domain, next(iter(whole)))
    records = whole[name]
    few = {name: {f"{key}X": records[key] for key in list(records)[:1]} if isinstance(records, dict) else records}
    medians = {}
    for kind, data in (("none", None), ("one record", few), ("all of it", whole)):
        ours, theirs = Clock(), Clock()
        chosen = [(with_database(task, data), script) for task, script in play.scripts(domain, tasks)]
        for task, script in chosen:
            our_episode(domain, task, script, Clock())
        for task, script in chosen * 3:
            our_episode(domain, task, script, ours)
        for task, script in chosen[:stock_tasks]:
            stock_episode(domain, task, script, theirs)
        medians[kind] = statistics.median(ours.seen["episode"])
        ratio = statistics.median(theirs.seen["episode"]) / medians[kind]
        print(
            f"  own database a task, {kind:10}: τ²{millis(theirs.seen['episode'])}, here{millis(ours.seen['episode'])}"
            f" ms CPU = {ratio:.0f}x; {medians[kind] / medians['none']:.2f} of a task without   goal 2"
        )


def with_database(task: Any, data: dict[str, Any] | None) -> Any:
    """A copy of ``task`` that changes the agent's database in this way before its episodes begin."""
    fields = task.model_dump(mode="json")
    initial = fields["initial_state"] or {"initialization_actions": None, "message_history": None}
    own = {**(initial.get("initialization_data") or {}), "agent_data": data} if data else None
    return type(task).model_validate({**fields, "initial_state": {**initial, "initialization_data": own}})


def compare_memory(domain: str, count: int = 64, stock_count: int = 2) -> None:
    def grown(build: Callable[[], Any], number: int) -> float:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept = [build() for _ in range(number)]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        del kept
        return (after - before) / number

    task, script = play.scripts(domain, 1)[0]

    def ours() -> Any:
        world = World(domain, "base", task)
        world.set_state([])
        recorded(script, lambda call: world.call(call)[0])
        return world.environment  # without the messages, which are the conversation's

    ours()
    theirs = grown(lambda: tau2_compat.build_environment(domain, solo=False, env_kwargs={}), stock_count)
    here = grown(ours, count)
    print(f"  memory of a live environment: τ² {theirs / 1024:.0f} KB, here {here / 1024:.0f} KB = {here / theirs:.2%}")


@contextlib.contextmanager
def watched_loop() -> Iterator[list[float]]:
    """CPU seconds of every single callback that asyncio runs inside: nothing else can run while one does."""
    blocks: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        begin = time.thread_time()
        run(handle)
        blocks.append(time.thread_time() - begin)

    asyncio.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield blocks
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def our_throughput(domain: str, episodes: int) -> tuple[float, float, float]:
    """(episodes a CPU second, episodes a second, longest callback in CPU ms), 256 at once."""
    chosen = play.scripts(domain, 50)
    for task, script in chosen:
        await play.converse(domain, task, script)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            await play.converse(domain, *chosen[number % len(chosen)])

    begin, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(number) for number in range(episodes)))
    took, spent = time.perf_counter() - begin, time.process_time() - cpu
    with watched_loop() as blocks:
        await asyncio.gather(*(one(number) for number in range(episodes)))
    return episodes / spent, episodes / took, 1000 * max(blocks)


def stock_throughput(domain: str, play_one: Callable[..., float], episodes: int) -> tuple[float, float]:
    """(episodes a CPU second, episodes a second), all of them at once in threads."""
    chosen = play.scripts(domain, min(episodes, 50))
    play_one(domain, *chosen[0])
    begin, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(episodes) as pool:
        list(pool.map(lambda number: play_one(domain, *chosen[number % len(chosen)]), range(episodes)))
    return episodes / (time.process_time() - cpu), episodes / (time.perf_counter() - begin)


FIRST = """
import time
from benchmarks import scripted_play as play
from tau2_slime.world import domains, tau2_compat
import asyncio, sys
tau2_compat.load()
domain, way = sys.argv[1:]
begin = time.process_time()
task, script = play.scripts(domain, 1)[0]
read = time.process_time()
if way == "ours":
    asyncio.run(play.converse(domain, task, script))
else:
    play.orchestrate(domain, task, script)
print(read - begin, time.process_time() - read)
"""


def first_episode(domain: str) -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    line = []
    for way in ("stock", "ours"):
        done = subprocess.run(
            [sys.executable, "-c", FIRST, domain, way],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        tasks, episode = (1000 * float(x) for x in done.stdout.split()[-2:])
        line.append(f"{'τ²' if way == 'stock' else 'here'}: tasks {tasks:.0f} + episode {episode:.0f} ms")
    print(f"  first episode after import, CPU: {'; '.join(line)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", nargs="+", default=["airline", "retail", "telecom"])
    parser.add_argument("--quick", action="store_true", help="fewer episodes of τ²'s own")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), Python "
        f"{platform.python_version()}, {tau2_compat.version()}"
    )
    many = {"airline": 8, "retail": 16, "telecom": 32}
    for domain in options.domain:
        count = 4 if options.quick else many.get(domain, 16)
        compare_cpu(domain, 50, count)
        compare_own_database(domain)
        compare_memory(domain)
        first_episode(domain)
        per_cpu, per_second, block = asyncio.run(our_throughput(domain, 1024))
        goal = {"airline": 300, "retail": 300, "telecom": 200}.get(domain)
        print(
            f"  {AT_ONCE} whole conversations at once: {per_cpu:.0f} episodes a CPU second   goal {goal}; "
            f"{per_second:.0f} a second; longest block of the loop {block:.1f} ms CPU   goal 10"
        )
        for name, way in (("Orchestrator + evaluate_simulation", play.orchestrate), ("AgentGymEnv", play.play_gym)):
            theirs, wall = stock_throughput(domain, way, count)
            print(
                f"  τ²'s {name}, {count} threads: {theirs:.2f} a CPU second, {wall:.2f} a second: {per_cpu / theirs:.0f}x"
            )


if __name__ == "__main__":
    main()
