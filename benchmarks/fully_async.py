"""What do weight updates cost a fully-async rollout?  ``python benchmarks/fully_async.py --slime SLIME_CHECKOUT``

slime's own fully-async rollout plays toy episodes of three turns (two groups of two, four requests in flight) against the
embedded policy, once left alone and once with a weight update every 1.5 s, each of which aborts every request in flight.
``--soak N`` plays N episodes with faults instead: 5 % of the calls fail (HTTP 500 and 503, connections that end before or
after the answer, garbage, half an answer) and the weights change twice a second; it prints what was left behind.

Needs an interpreter with this package, torch (CPU) and what slime's rollout imports (docs/compatibility.md); no GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.slime_cpu.modes import FULLY_ASYNC_FLAGS, play, soak


def compare(python: str, slime: str, rollouts: int, every: float) -> None:
    plan = {
        **{"slime": slime, "rollouts": rollouts + 1, "groups": 2, "group_size": 2, "tasks": ["create_task_1"] * 2},
        "flags": [*FULLY_ASYNC_FLAGS, "--sglang-server-concurrency", "4"],
        "server": {"latency": 0.06, "chatty": True},
    }
    means = []
    for name, seconds in (("no updates", 0.0), (f"every {every:g} s", every)):
        report = play(python, {**plan, "update_every": seconds, "update_between": False}, 1200)
        later = report["rollouts"][1:]  # the first one also imports τ² and litellm
        means.append(statistics.fmean(entry["seconds"] for entry in later))
        counts = {
            key: sum(entry[key] for entry in report["rollouts"]) for key in ("episodes", "calls", "cut", "unused")
        }
        print(
            f"{name:14} {means[-1]:5.2f} s a rollout ({', '.join(str(entry['seconds']) for entry in later)})   "
            f"{counts['calls']} calls in {counts['episodes']} returned episodes   {report['updates']} updates   "
            f"{counts['cut']} aborted and resumed in place   {counts['unused']} outputs not used   "
            f"problems: {len(report['problems'])}",
            flush=True,
        )
        for problem in report["problems"][:5]:
            print("   ", problem)
    print(f"ratio          {means[1] / means[0]:5.2f}")


def endure(python: str, slime: str, episodes: int) -> None:
    plan = soak(episodes)
    report = play(python, {"slime": slime, **plan}, 7200)
    wanted = plan["rollouts"] * plan["groups"]
    told, watched = report["rollouts"], report["watched"]
    total = {key: sum(entry[key] for entry in told) for key in ("groups", "episodes", "calls", "cut", "unused")}
    status: dict[str, int] = {}
    for entry in told:
        for name, count in entry["status"].items():
            status[name] = status.get(name, 0) + count
    print(f"groups wanted {wanted}, returned {total['groups']}, each once; {total['episodes']} episodes: {status}")
    print(f"{report['requests']} requests, {report['failed']} of them failed; {report['updates']} weight updates")
    print(f"{report['user_calls']} calls of the user model, {report['user_failed']} of them failed")
    print(
        f"{total['cut']} turns aborted and resumed in place, {total['unused']} outputs not used (episodes played again)"
    )
    print(f"{sum(entry['seconds'] for entry in told):.0f} s; at most {watched['at_once']} episodes at once")
    left = watched["left_behind"] or "none but litellm's log worker"
    print(f"tasks left behind: {left}; threads at the end: {', '.join(watched['threads'])}")
    memory = [entry["memory"] for entry in told]
    half = len(memory) // 2
    print(f"MiB of memory after each rollout: {', '.join(f'{value:.0f}' for value in memory)}")
    print(f"growth over the last half: {memory[-1] - memory[half]:+.1f} MiB ({memory[-1] / memory[half] - 1:+.1%})")
    print("problems:", report["problems"][:10] or "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slime", default=os.environ.get("SLIME_DIR"), help="a slime checkout (v0.3.0 or later)")
    parser.add_argument("--python", default=os.environ.get("SLIME_PYTHON") or sys.executable)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--every", type=float, default=1.5, help="seconds between two weight updates")
    parser.add_argument("--soak", type=int, metavar="EPISODES", help="play that many with faults instead")
    given = parser.parse_args()
    if not given.slime:
        parser.error("name a slime checkout: --slime or SLIME_DIR")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    if given.soak:
        endure(given.python, given.slime, given.soak)
    else:
        compare(given.python, given.slime, given.rollouts, given.every)


if __name__ == "__main__":
    main()
