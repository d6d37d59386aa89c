"""`tau2-slime convert-v1`: what tau-bench v1 recorded beside what τ² pays for the same conversations; τ²'s files of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.report.table import Table, print_page
from tau2_slime.evaluation.report.tables import decimal
from tau2_slime.evaluation.report.tau2_results import EPOCH, simulation_id
from tau2_slime.evaluation.statistics.estimates import Scores, scores
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.evaluation.taubench_v1.recorded import read_results
from tau2_slime.evaluation.taubench_v1.replay import DOMAINS, Replayed, domain_of, replay, tau2_tasks
from tau2_slime.outcome import Termination
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import scoring, tau2_compat

if TYPE_CHECKING:
    from rich.console import Console
    from tau2.data_model.simulation import Results

    from tau2_slime.world.types import RewardInfo, Task

_V1_STEPS = 30
"""v1's fixed limit of the agent's messages."""


def run(path: Path, domain: str | None, output_dir: Path | None, console: Console) -> int:
    """Convert, replay and compare the runs of ``path``; write tasks and simulations to ``output_dir``."""
    if domain is not None and domain not in DOMAINS:
        raise ConfigError(f"--domain {domain}: tau-bench v1 has {' and '.join(DOMAINS)} only")
    runs = read_results(path)
    chosen = domain or domain_of(runs)
    tasks = tau2_tasks(runs, chosen)
    replayed = [replay(run, tasks.get(run.task_id), chosen) for run in runs]
    print_page(sentences(replayed, chosen), tables(replayed, chosen), console)
    if output_dir is not None:
        write_files(replayed, tasks, chosen, path.stem, output_dir)
        console.print(f"tasks.json and simulations.json: {output_dir}", markup=False, soft_wrap=True)
    return 0


def sentences(replayed: Sequence[Replayed], domain: str) -> list[str]:
    """How often the two rewards agree, then what a reader must know about it."""
    played = [r for r in replayed if r.agrees is not None]
    agree = sum(bool(r.agrees) for r in played)
    tasks = len({r.run.task_id for r in replayed})
    said = [
        f"{len(replayed)} runs of {tasks} {domain} tasks. {tau2_compat.version()} pays what tau-bench v1 recorded in "
        f"{agree} of {len(played)}."
    ]
    cut = sum(r.termination is Termination.MAX_STEPS for r in played)
    if cut:
        said.append(f"{cut} were cut off before their end: v1 computed no reward, τ² pays 0 for max_steps.")
    if len(played) < len(replayed):
        said.append(
            f"{len(replayed) - len(played)} raised in v1 and have no trajectory: v1 counts 0, here they are left out."
        )
    thoughts, flipped = sum(r.thoughts for r in played), sum(r.flipped for r in played)
    if thoughts:
        said.append(f"{thoughts} calls of `think` were left out: τ² has no such tool.")
    if flipped:
        said.append(f"{flipped} of {sum(r.answers for r in played)} tool results are an error in one of the two only.")
    return said


def units(replayed: Sequence[Replayed], rewards: Sequence[float | None], domain: str) -> list[Unit]:
    """One unit per task, its attempts in the order of their trials."""
    by_task: dict[int, list[tuple[int, float | None]]] = {}
    for r, reward in zip(replayed, rewards, strict=True):
        by_task.setdefault(r.run.task_id, []).append((r.run.trial, reward))
    return [
        Unit("v1", domain, f"v1_{task}", "", tuple(reward for _, reward in sorted(found, key=lambda pair: pair[0])))
        for task, found in sorted(by_task.items())
    ]


def tables(replayed: Sequence[Replayed], domain: str) -> list[Table]:
    """pass^k by both rewards; and the runs in which the rewards differ, if there are any."""
    recorded = scores(units(replayed, [r.run.reward for r in replayed], domain))
    ours = scores(units(replayed, [r.reward for r in replayed], domain))
    rows = [[str(k), *_cells(recorded, k), *_cells(ours, k)] for k in recorded.pass_hat]
    columns = ["k", "pass^k v1", "95% interval", "pass@k", "pass^k τ²", "95% interval", "pass@k"]
    note = "pass@k: unbiased. Intervals: 95%, over tasks."
    out = [Table("pass^k as recorded and as τ² pays", columns, rows, note, text_columns=0)]
    cells = [
        [str(r.run.task_id), str(r.run.trial), f"{r.run.reward:g}", f"{r.reward:g}", r.termination.value, _why(r)]
        for r in sorted(replayed, key=lambda r: (r.run.task_id, r.run.trial))
        if r.agrees is False
    ]
    if cells:
        columns = ["task", "trial", "v1", "τ²", "ended by", "τ²'s parts"]
        out.append(Table("Runs that τ² pays otherwise", columns, cells, text_columns=0))
    return out


def _cells(found: Scores, k: int) -> list[str]:
    hat = found.pass_hat.get(k)
    if hat is None:
        return ["-", "-", "-"]
    return [decimal(hat.value), f"{hat.low:.3f} to {hat.high:.3f}", decimal(found.pass_at[k].value)]


def _why(r: Replayed) -> str:
    """The parts of τ²'s reward."""
    parts = r.reward_info.reward_breakdown if r.reward_info is not None else None
    return ", ".join(f"{name.value} {value:g}" for name, value in parts.items()) if parts else "-"


# ---- files -----------------------------------------------------------------------------------------------------------


def write_files(replayed: Sequence[Replayed], tasks: Mapping[int, Task], domain: str, name: str, folder: Path) -> None:
    """``tasks.json``, a τ² task file, and ``simulations.json``, τ²'s `Results` of every run with a trajectory."""
    folder.mkdir(parents=True, exist_ok=True)
    dumped = [task.model_dump(mode="json") for task in tasks.values()]
    results = results_of(replayed, dumped, domain, name)
    write_atomically(folder / "tasks.json", json.dumps(dumped, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "simulations.json", results.model_dump_json(indent=1) + "\n")


def results_of(replayed: Sequence[Replayed], tasks: list[dict[str, Any]], domain: str, name: str) -> Results:
    """τ²'s `Results` of all runs. v1's files do not name the agent's model; ``name`` stands in its place."""
    environment = tau2_compat.build_environment(domain, solo=False, env_kwargs={})
    trials = Counter(r.run.task_id for r in replayed)
    converted: Results = tau2_compat.load().Results.model_validate(
        {
            "timestamp": EPOCH,
            "info": {
                "git_commit": "tau-bench v1",
                "num_trials": max(trials.values()),
                "max_steps": _V1_STEPS,
                "max_errors": _V1_STEPS,
                "user_info": {"implementation": "tau-bench v1"},
                "agent_info": {"implementation": "tau-bench v1", "llm": name},
                "environment_info": environment.get_info(include_tool_info=False).model_dump(mode="json"),
            },
            "tasks": tasks,
            "simulations": [_simulation(r, r.reward_info) for r in replayed if r.reward_info is not None],
        }
    )
    return converted


def _simulation(r: Replayed, reward_info: RewardInfo) -> dict[str, Any]:
    return {
        "id": simulation_id(f"{r.run.task_id}/{r.run.trial}"),
        "task_id": f"v1_{r.run.task_id}",
        "trial": r.run.trial,
        "timestamp": EPOCH,
        "start_time": EPOCH,
        "end_time": EPOCH,
        "duration": 0.0,
        "termination_reason": scoring.tau2_reason(r.termination).value,
        "user_cost": r.run.info.get("user_cost"),
        "reward_info": reward_info.model_dump(mode="json"),
        "messages": [message.model_dump(mode="json") for message in r.messages],
    }
