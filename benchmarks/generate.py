"""What does a whole `generate` cost, and where?  ``python benchmarks/generate.py [--domain retail] [--against CHECKOUT]``

Real `generate` calls, 64 at once, zero latency: the embedded policy and the scripted user each answer HTTP in a process of
their own, as in life. A third process plays. It is sampled every 2 ms of its CPU time; each sample is booked to the
innermost function of this package on the stack, or to what runs without one.

``--against CHECKOUT``: an older checkout plays the same episodes in a process of its own, in turn with this one, block by
block. The ratios are those of the medians. What both train on must be identical; a later checkout may add metadata.
``--user-calls N`` measures the simulator: N calls against a local endpoint, 256 at once, through litellm and directly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import tau2_slime
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.world import tau2_compat

HERE = Path(tau2_slime.__file__).parent.parent
PARTS = [
    ("HTTP and its JSON", ("tokens/engine.py", "runtime/http", "chat/completion.py")),
    (
        "chat template",
        (
            *("tokens/template/chat_template.py:render", "tokens/template/chat_template.py:after"),
            "tokens/template/chat_delta.py",
        ),
    ),
    ("tokenising and decoding", ("tokens/template/",)),
    ("reading the reply", ("tokens/calls/",)),
    ("ledger, samples", ("tokens/ledger.py", "tokens/replay.py", "slime_adapter/", "policy/")),
    ("user simulator", ("world/users/",)),
    ("scoring", ("world/scoring.py", "world/fast/evaluation.py")),
    ("environment and tools", ("world/",)),
    ("agent, loop, configuration", ("",)),
]


def parts(functions: dict[str, int]) -> dict[str, int]:
    """Samples by part of the package."""
    booked: Counter[str] = Counter()
    for function, count in functions.items():
        if function.startswith("["):
            booked["event loop and HTTP client"] += count
            continue
        booked[next(name for name, prefixes in PARTS if any(function.startswith(p) for p in prefixes))] += count
    return dict(booked.most_common())


# ---- the other processes -------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(*arguments: str, checkout: Path = HERE, **pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(checkout)}, **pipes)


async def until_open(port: int) -> None:
    for _ in range(3000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise TimeoutError(f"nothing listens on port {port}")


@contextlib.asynccontextmanager
async def servers(*, nice: int = 0) -> AsyncIterator[dict[str, Any]]:
    """The embedded policy and the scripted users, each in a process of its own: checkpoint, and port by name."""
    checkpoint, policy, user = str(local_checkpoint()), free_port(), free_port()
    running = [
        start("-m", "tau2_slime.local.policy_server", "--hf-checkpoint", checkpoint, "--port", str(policy)),
        start(str(Path(__file__).with_name("scripted_endpoint.py")), str(user)),
    ]
    try:
        for server in running if nice else ():
            os.setpriority(os.PRIO_PROCESS, server.pid, nice)
        await until_open(policy)
        await until_open(user)
        yield {"checkpoint": checkpoint, "policy": policy, "user": user}
    finally:
        for server in running:
            server.terminate()
            server.wait(30)


class Player:
    """A process that plays with the package of ``checkout``."""

    def __init__(self, checkout: Path, known: dict[str, Any]) -> None:
        script, pipes = Path(__file__).with_name("player.py"), {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = start(str(script), json.dumps(known), checkout=checkout, **pipes)

    def play(self, domain: str, episodes: int, *, sampled: bool = False) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        block = {"domain": domain, "episodes": episodes, "at_once": 64, "sampled": sampled}
        self._process.stdin.write(json.dumps(block).encode() + b"\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


# ---- what is measured ----------------------------------------------------------------------------------------------------


def profile(player: Player, domain: str, episodes: int, show: int) -> None:
    player.play(domain, episodes)  # imports, the tokenizer, the domain, gold end states
    block = player.play(domain, episodes, sampled=True)
    each, total = 1000 * block["cpu"], sum(block["functions"].values())
    print(
        f"\n{domain}: {each:.1f} ms CPU an episode ({block['turns']:.1f} turns of the policy), "
        f"{episodes / block['wall']:.0f} episodes a second in this process; mean reward {block['rewards']:.2f}"
    )
    for name, count in parts(block["functions"]).items():
        print(f"  {name:28} {each * count / total:7.2f} ms  {count / total:5.1%}")
    for function, count in Counter(block["functions"]).most_common(show):
        print(f"      {function:60} {each * count / total:7.2f} ms")


def compare(here: Player, there: Player, domain: str, episodes: int, rounds: int) -> None:
    for player in (here, there):
        player.play(domain, episodes)
    blocks: dict[Player, list[dict[str, Any]]] = {here: [], there: []}
    for number in range(rounds):
        for player in (here, there) if number % 2 else (there, here):
            blocks[player].append(player.play(domain, episodes))
    new, old = (1000 * statistics.median(block["cpu"] for block in blocks[player]) for player in (here, there))
    least = [1000 * min(block["cpu"] for block in blocks[player]) for player in (here, there)]
    every = [block for played in blocks.values() for block in played]
    trained, told = (len({block[part] for block in every}) == 1 for part in ("trained", "told"))
    samples = "identical" if trained and told else "identical but for metadata" if trained else "DIFFERENT"
    print(
        f"{domain:8} {new:6.2f} ms CPU an episode here, {old:6.2f} there: {new / old:.2f} of it (least {least[0]:.2f} and "
        f"{least[1]:.2f}); {1000 / new:.0f} episodes a CPU second; mean reward {blocks[here][0]['rewards']:.2f}, "
        f"samples {samples}",
        flush=True,
    )


async def measure_users(calls: int, port: int) -> None:
    """CPU time of one call of the user simulator, by the way it is called."""
    from tau2_slime.world import domains, users

    task = domains.tasks("retail", "base")[0]
    print("\nuser simulator, one call against a local endpoint, 256 at once:")
    # An argument that litellm has a meaning of its own for sends a call through it.
    for name, args in (("litellm", {"extra_headers": {"X-Benchmark": "litellm"}}), ("asked directly", {})):
        spec = users.UserSpec(
            model="openai/retail@0", base_url=f"http://127.0.0.1:{port}/v1", concurrency=256, args=args
        )

        async def talk(spec: Any = spec) -> None:
            user = users.LitellmUser(spec, tools=None, instructions=str(task.user_scenario))
            user.start([])
            for _ in range(5):
                said = tau2_compat.load().AssistantMessage(role="assistant", content="How can I help you? " * 10)
                await user.reply(said)

        await asyncio.gather(*(talk() for _ in range(8)))
        cpu, begin = time.process_time(), time.perf_counter()
        for _ in range(max(1, calls // 1280)):
            await asyncio.gather(*(talk() for _ in range(256)))
        count = max(1, calls // 1280) * 1280
        print(
            f"  {name:24} {1000 * (time.process_time() - cpu) / count:6.2f} ms CPU a call, "
            f"{count / (time.perf_counter() - begin):.0f} calls a second"
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256, help="of a block")
    parser.add_argument("--domain", nargs="+", default=["airline", "retail", "telecom"])
    parser.add_argument("--functions", type=int, default=0, help="also print that many functions")
    parser.add_argument("--user-calls", type=int, default=2560)
    parser.add_argument("--against", type=Path, help="an older checkout to compare with, block by block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each checkout")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f}), Python "
        f"{platform.python_version()}, {tau2_compat.version()}"
    )
    async with servers() as known:
        checkouts = [HERE] if options.against is None else [HERE, options.against.resolve()]
        players = [Player(checkout, known) for checkout in checkouts]
        try:
            for domain in options.domain:
                if options.against is None:
                    profile(players[0], domain, options.episodes, options.functions)
                else:
                    compare(*players, domain, options.episodes, options.rounds)
        finally:
            for player in players:
                player.stop()
        if options.user_calls and options.against is None:
            await measure_users(options.user_calls, known["user"])


if __name__ == "__main__":
    asyncio.run(main())
