"""How long does the event loop stand still?  ``python benchmarks/event_loop.py [--episodes 256] [--domain mock ...]``

Each domain gets a fresh process, as slime's rollout process is one: that many real `generate` calls at once, the first of
the process and of the domain among them, then the same again, while a ticker asks the loop for the time every 5 ms. Printed
is the longest gap, and the longest one by the CPU time that this process used in it: the difference is the machine's other
work. The policy and the user answer HTTP in processes of their own, which give way to this one, as on other machines. The
first line is the same loop with nothing to do: what this machine's scheduler alone costs.

``--door turns``: the episodes of the verifiers and Tinker doors (`TurnEpisode`), whose turns an OpenAI-compatible endpoint
gives. ``--door verifiers``: rollouts of verifiers' own v1 environment, whose client asks that endpoint.

Modules are loaded from bytecode, as an installed package's are, whatever PYTHONDONTWRITEBYTECODE says: a first process that
does not count compiles them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from generate import servers, start
from player import played

from tau2_slime.backends.verifiers.versions import has_v1
from tau2_slime.world import domains

TICK = 0.005
ENVIRONMENT = str(Path(__file__).resolve().parents[1] / "environments" / "tau2_bench")
"""Where verifiers finds the module of its id."""


class Ticker:
    """Delay of a 5 ms timer beyond its due time, and the part of it in which this process had a CPU, in seconds."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.own: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Ticker:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            begin, cpu = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK)
            self.delays.append(time.perf_counter() - begin - TICK)
            self.own.append(min(self.delays[-1], time.process_time() - cpu))

    def line(self, name: str) -> str:
        ordered = sorted(self.delays)
        p99 = ordered[int(len(ordered) * 0.99)]
        return (
            f"{name:28} longest {1000 * ordered[-1]:8.1f} ms, own {1000 * max(self.own):6.1f} ms   "
            f"p99 {1000 * p99:7.1f} ms   median {1000 * statistics.median(ordered):6.2f} ms   {len(ordered)} ticks"
        )


def task_and_settings(block: dict[str, Any], known: dict[str, Any], index: int) -> tuple[int, dict[str, Any]]:
    """The position of an episode's task in its domain, and the settings under which it is played."""
    ids = block["tasks"]
    position = index * len(ids) // block["episodes"] if len(ids) > block["episodes"] else index % len(ids)
    user = {"user_model": f"openai/{block['domain']}@{position}", "user_base_url": endpoint(known)}
    return position, {"max_turns": 200, **user}


def endpoint(known: dict[str, Any]) -> str:
    return f"http://127.0.0.1:{known['user']}/v1"


async def turns(block: dict[str, Any], known: dict[str, Any]) -> float:
    """Mean reward of the block's episodes, played as the frameworks that hold the policy play them."""
    import aiohttp

    from tau2_slime.backends.turns import TurnEpisode
    from tau2_slime.chat.completion import read_message
    from tau2_slime.config.settings import Tau2Config
    from tau2_slime.runtime import http, sessions

    domain, url = block["domain"], f"{endpoint(known)}/chat/completions"

    async def one(index: int) -> float:
        position, settings = task_and_settings(block, known, index)
        config = Tau2Config.resolve(None, {"domain": domain, "task_split": "base", **settings}, environ={})
        episode = await TurnEpisode.create(config, task_id=block["tasks"][position])
        ask = await episode.begin()
        while ask is not None:
            body = {"model": f"agent:{domain}@{position}", "messages": ask.chat}
            within = aiohttp.ClientTimeout(total=600)
            answer = await http.post(sessions.inside(), url, body, headers={}, within=within)
            message = json.loads(answer.body)["choices"][0]["message"]
            ask = await episode.reply(episode.understood(read_message(message)))
        assert episode.result is not None
        return episode.result.reward or 0.0

    return statistics.fmean(await asyncio.gather(*map(one, range(block["episodes"]))))


async def rollouts(environment: Any, block: dict[str, Any], known: dict[str, Any]) -> float:
    """Mean reward of the block's episodes, each one a rollout of verifiers' ``environment``."""
    import verifiers.v1 as vf

    from tau2_slime.backends.verifiers.v1 import Tau2Task, Tau2TaskData

    client = vf.EvalClientConfig(base_url=endpoint(known), api_key_var="NO_KEY")

    async def one(index: int) -> float:
        position, settings = task_and_settings(block, known, index)
        task, agent = block["tasks"][position], f"agent:{block['domain']}@{position}"
        place = {"domain": block["domain"], "task_split": "base", "task_id": task}
        data = Tau2TaskData(id=task, name=task, prompt="τ²", settings=settings, **place)
        (slot,) = environment.slots(Tau2Task(data, environment.taskset.config.task), 1)
        context = vf.ModelContext(model=agent, client=client, sampling=vf.SamplingConfig())
        (trace,) = (await environment.run_slot(slot, context, None)).traces
        return float(trace.reward)

    async with environment.serving():
        return statistics.fmean(await asyncio.gather(*map(one, range(block["episodes"]))))


async def one_process(block: dict[str, Any], known: dict[str, Any]) -> None:
    """What a fresh process sees: idle, then the first episodes, then the same again."""
    from tau2_slime import generate_with_tau2  # noqa: F401 - slime has the door before it has an episode

    if block["door"] == "verifiers":  # which is loaded before there is a loop, as its programs do
        from tau2_slime.backends.verifiers import load_environment

        sys.path.append(ENVIRONMENT)
        environment = load_environment(domain=block["domain"], task_split="base", user_llm="scripted")
    async with Ticker() as idle:
        await asyncio.sleep(2)
    print(idle.line("idle loop"))
    name = f"{block['domain']}, {block['episodes']} at once"
    for which in ("first", "again"):
        async with Ticker() as busy:
            begin = time.perf_counter()
            if block["door"] == "turns":
                reward = await turns(block, known)
            elif block["door"] == "verifiers":
                reward = await rollouts(environment, block, known)
            else:
                samples = await played(block, SimpleNamespace(**known))
                reward = statistics.fmean(sample.reward for sample in samples)
            took = time.perf_counter() - begin
        print(busy.line(f"{name}, {which}") + f"   {took:.1f} s, reward {reward:.2f}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--domain", nargs="+", default=["mock", "telecom", "retail", "airline"])
    parser.add_argument("--door", choices=["generate", "turns", "verifiers"], default="generate")
    options = parser.parse_args()
    if options.door == "verifiers" and not has_v1():
        made, used = "python tests/backends/setup_env.py verifiers-v1", ".venv-verifiers-v1/bin/python"
        parser.error(f"this Python has no verifiers >= 0.4: `{made}` makes {used}, which runs this")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}", flush=True)
    async with servers(nice=10) as known:
        if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
            os.environ.setdefault("PYTHONPYCACHEPREFIX", str(Path(known["checkpoint"]).with_name("bytecode")))

        async def fresh(domain: str, episodes: int, **pipes: Any) -> None:
            tasks = [task.id for task in domains.tasks(domain, "base")]
            block = {"domain": domain, "tasks": tasks, "episodes": episodes, "at_once": episodes}
            block |= {"sampled": False, "door": options.door}
            process = start(__file__, "--fresh", json.dumps(block), json.dumps(known), **pipes)
            await asyncio.to_thread(process.wait)

        for domain in options.domain:
            await fresh(domain, 1, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            await fresh(domain, options.episodes)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fresh"]:
        asyncio.run(one_process(json.loads(sys.argv[2]), json.loads(sys.argv[3])))
    else:
        asyncio.run(main())
