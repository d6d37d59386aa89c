"""What do others' episodes cost?  ``python benchmarks/peers.py [--domain airline retail telecom] [--episodes 32]``

Each way of playing gets a fresh process, the same gold tasks, all at once, and the same scripted policy and user over HTTP:

    generate    slime's door of this package
    run_task    τ²'s own `run_task`: its agent and its user, asked through litellm, in threads
    gym         τ²'s `AgentGymEnv` in threads, as rollout code that wraps it does; its agent's lines cost nothing here
    ancestor    slime's earlier recipe, with ``--ancestor CHECKOUT`` (see `ancestor.py`)

Printed are CPU time of an episode, the longest time that an event loop in that process stood still, peak memory, the ratios
to ``generate``, and the mean reward. The same episodes are played once before: nothing is imported while it counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from event_loop import Ticker
from generate import free_port, servers, start, until_open
from player import play

from tau2_slime.world import domains, tau2_compat

THREADS = 32
"""Of asyncio's default executor, at most: where most rollout code runs blocking environments."""


def run_task(domain: str, position: int, task: Any, url: str) -> float:
    """One episode of τ²'s own runner; its reward."""
    from tau2.run import run_task as run

    given = {"api_base": url, "api_key": "none"}
    simulation = run(
        domain=domain,
        task=task,
        agent="llm_agent",
        user="user_simulator",
        llm_agent=f"openai/agent:{domain}@{position}",
        llm_args_agent=given,
        llm_user=f"openai/{domain}@{position}",
        llm_args_user=given,
        max_steps=1000,
        max_errors=1000,
    )
    return float(simulation.reward_info.reward)


def gym(domain: str, position: int, task: Any, url: str) -> float:
    """One episode of τ²'s gym, whose user is asked through litellm; its reward."""
    from tau2.gym.gym_agent import AgentGymEnv

    from tau2_slime.local.gold import GoldScript

    given = {"api_base": url, "api_key": "none"}
    user = f"openai/{domain}@{position}"
    environment = AgentGymEnv(domain=domain, task_id=task.id, max_steps=1000, user_llm=user, user_llm_args=given)
    environment.reset()
    reward, over = 0.0, False
    for turn in GoldScript.from_task(task).turns:
        call = turn.call
        action = turn.text if call is None else json.dumps({"name": call[0], "arguments": call[1]})
        _, reward, over, _, _ = environment.step(action)
        if over:
            break
    return float(reward)


PEERS: dict[str, Callable[[str, int, Any, str], float]] = {"run_task": run_task, "gym": gym}


async def in_threads(peer: str, block: dict[str, Any], known: dict[str, Any]) -> float:
    """Mean reward of the episodes, played by a blocking peer in threads."""
    domain, url = block["domain"], f"http://127.0.0.1:{known['user']}/v1"
    tasks = domains.tasks(domain, "base")
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as threads:
        rewards = await asyncio.gather(
            *(
                loop.run_in_executor(threads, partial(PEERS[peer], domain, position, tasks[position], url))
                for position in block["positions"]
            )
        )
    return sum(rewards) / len(rewards)


async def one(peer: str, block: dict[str, Any], known: dict[str, Any]) -> None:
    """Play ``block`` twice, and print what the second time cost."""
    tau2_compat.load()

    async def round_() -> float:
        if peer == "ancestor":
            import ancestor

            return await ancestor.play(Path(known["ancestor"]), block, known)
        if peer == "generate":
            return float((await play(block, SimpleNamespace(**known)))["rewards"])
        return await in_threads(peer, block, known)

    await round_()
    cpu = time.process_time()
    async with Ticker() as ticker:
        reward = await round_()
    told = {"cpu": (time.process_time() - cpu) / block["episodes"], "stall": max(ticker.delays), "reward": reward}
    told["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(told))


def show(domain: str, peer: str, told: dict[str, float], ours: dict[str, float]) -> None:
    cpu, memory = told["cpu"] / ours["cpu"], told["memory"] / ours["memory"]
    print(
        f"{domain:8} {peer:9} {1000 * told['cpu']:8.1f} ms CPU an episode ({cpu:5.1f} x)   longest stall "
        f"{1000 * told['stall']:7.0f} ms   {told['memory']:.2f} GB ({memory:.1f} x)   mean reward {told['reward']:.3f}",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domain", nargs="+", default=["airline", "retail", "telecom"])
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--ancestor", type=Path, help="its checkout")
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {tau2_compat.version()}")
    async with servers() as known:
        text = None
        if options.ancestor is not None:
            known |= {"ancestor": str(options.ancestor.resolve()), "text": free_port()}
            text = start(str(Path(__file__).with_name("ancestor.py")), str(known["text"]))
            await until_open(known["text"])
        for domain in options.domain:
            tasks = domains.tasks(domain, "base")
            positions = [n * len(tasks) // options.episodes for n in range(options.episodes)]
            block = {"domain": domain, "episodes": len(positions), "at_once": len(positions), "sampled": False}
            block |= {"positions": positions, "tasks": [task.id for task in tasks]}
            found: dict[str, dict[str, float]] = {}
            for peer in ("generate", *options.peers, *(["ancestor"] if text else [])):
                process = start(__file__, "--one", peer, json.dumps(block), json.dumps(known), stdout=subprocess.PIPE)
                said, _ = await asyncio.to_thread(process.communicate)
                if process.returncode:
                    raise SystemExit(f"{peer} failed on {domain}")
                found[peer] = json.loads(said.splitlines()[-1])
                show(domain, peer, found[peer], found["generate"])
        if text is not None:
            text.terminate()
            text.wait(30)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        asyncio.run(one(sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])))
    else:
        asyncio.run(main())
