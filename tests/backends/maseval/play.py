"""MASEval's side of the comparison: plays tool calls and reports what came of them. Runs where ``maseval`` is installed.

Reads one JSON object from stdin and writes one to stdout; nothing of this repository is imported. A request is
``{"data": folder, "episodes": [{"domain", "task", "calls": [{"name", "requestor", "arguments"}]}]}`` or
``{"attempts": [{task: [passed, ...]}, ...]}``.

The databases are read once. Each episode runs in a fork of its own, so it begins with what was read, and what it leaves in
MASEval's classes (a broken ``default_vpn_details``, as in τ²) is gone with it.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from functools import cache
from pathlib import Path
from typing import Any


@cache
def tasks(data: Path, domain: str) -> dict[str, Any]:
    from maseval.benchmark.tau2 import load_tasks

    # "base" would be the first 114 of telecom's file, which holds the full split.
    return {task.id: task for task in load_tasks(domain, split="all", data_dir=data)}


@cache
def untouched(data: Path, domain: str) -> tuple[Any, list[Any]]:
    """An environment of a task without an initial state, and its hashes."""
    from maseval.benchmark.tau2 import Tau2Environment

    task = next(iter(tasks(data, domain).values()))
    environment = Tau2Environment({**task.environment_data, "initial_state": None})
    return environment, hashes(environment)


def hashes(environment: Any) -> list[Any]:
    return [environment.get_db_hash(), environment.get_user_db_hash()]


def begin(data: Path, domain: str, task_id: str) -> tuple[Any, list[Any]]:
    """The environment at the beginning of a task, and its hashes."""
    from maseval.benchmark.tau2 import Tau2Environment

    task = tasks(data, domain)[task_id]
    if not task.environment_data["initial_state"]:
        return untouched(data, domain)
    environment = Tau2Environment(task.environment_data)
    return environment, hashes(environment)


def play(job: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    data, episode = job
    environment, beginning = begin(data, episode["domain"], episode["task"])
    results = []
    for call in episode["calls"]:
        try:
            result = environment.get_response(call["name"], call["requestor"], "", **call["arguments"])
        except TypeError as error:  # an argument that is named like one of get_response's own
            result = {"content": f"not callable: {error}", "error": True}
        results.append([result["content"], result["error"]])
    return {"initial": beginning, "results": results, "final": hashes(environment)}


def play_all(data: Path, episodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for domain in {episode["domain"] for episode in episodes}:
        untouched(data, domain)
    gc.disable()  # its walks over the databases would take half of the time, and copy every page in every fork
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        return pool.map(play, [(data, episode) for episode in episodes], chunksize=1)


def statistics(attempts: dict[str, list[bool]]) -> dict[str, Any]:
    from maseval.benchmark.tau2 import compute_pass_at_k
    from maseval.benchmark.tau2.evaluator import compute_pass_hat_k, pass_hat_k

    rows = [{"task_id": task, "eval": [{"passed": p}]} for task, outcomes in attempts.items() for p in outcomes]
    ks = list(range(1, max(map(len, attempts.values())) + 1))
    return {
        "pass_hat": compute_pass_hat_k(rows, ks),
        "pass_at": compute_pass_at_k(rows, ks),
        "pass_hat_by_task": {
            task: [pass_hat_k(len(outcomes), sum(outcomes), k) for k in range(1, len(outcomes) + 1)]
            for task, outcomes in attempts.items()
        },
    }


if __name__ == "__main__":
    request = json.load(sys.stdin)
    answer: dict[str, Any] = {"statistics": [statistics(attempts) for attempts in request.get("attempts", [])]}
    if "episodes" in request:
        answer["episodes"] = play_all(Path(request["data"]), request["episodes"])
    json.dump(answer, sys.stdout)
