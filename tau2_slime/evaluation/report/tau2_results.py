"""τ²'s own `Results` files, one per dataset and domain: what `tau2 view` shows and τ²'s metrics read.

Excluded episodes are not in them, because τ² would count them as failures of the agent.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.evaluation.statistics.summary import Summary
from tau2_slime.evaluation.store.protocol import DatasetProtocol
from tau2_slime.evaluation.store.records import Record
from tau2_slime.outcome import Termination
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import domains, scoring, tau2_compat

if TYPE_CHECKING:
    from tau2.data_model.simulation import Results

    from tau2_slime.world.types import Task

FOLDER = "results"
_ODD = re.compile(r"^[.-]|-[0-9a-f]{8}$")
"""A name that a shell or a glob would not see as one, or that looks as if it had a digest already."""
EPOCH = "1970-01-01T00:00:00"
"""The time of what has none."""


def write_results(summary: Summary, folder: Path) -> list[Path]:
    """Write ``results/<dataset>.json`` (``<dataset>-<domain>.json`` if it has several domains), and return the paths.

    τ²'s own model writes each file, so that τ² can read it. `file_names` says what becomes of other names.
    """
    out = folder / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    wanted: dict[tuple[str, str], str] = {}
    for dataset, part in summary.manifest["protocol"].items():
        chosen = sorted({item.partition("/")[0] for item in part["tasks"]})
        for domain in chosen:
            wanted[dataset, domain] = dataset if len(chosen) == 1 else f"{dataset}-{domain}"
    paths = []
    for (dataset, domain), name in zip(wanted, file_names(list(wanted.values()), list(wanted)), strict=True):
        results = results_of(summary, dataset, domain)
        if results is None:
            continue
        path = out / f"{name}.json"
        write_atomically(path, results.model_dump_json(indent=1))
        paths.append(path)
    return paths


def file_names(wanted: Sequence[str], keys: Sequence[object]) -> list[str]:
    """A file's name for each of ``wanted``, no two alike on any file system.

    A text that cannot be the name of a file, or that would be another one's, gets a digest of its key, which is unique.

    >>> file_names(["mock-base", "a/b"], [1, 2])
    ['mock-base', 'a_b-d4735e3a']
    """
    plain = ["".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:100] for text in wanted]
    folded = Counter(unicodedata.normalize("NFKC", name).casefold() for name in plain)
    return [
        name
        if name == text and not _ODD.search(name) and folded[unicodedata.normalize("NFKC", name).casefold()] == 1
        else f"{name.lstrip('.-') or 'dataset'}-{hashlib.sha256(repr(key).encode()).hexdigest()[:8]}"
        for name, text, key in zip(plain, wanted, keys, strict=True)
    ]


def results_of(summary: Summary, dataset: str, domain: str) -> Results | None:
    """τ²'s `Results` of one dataset's episodes in one domain; None if there are none."""
    part = summary.manifest["protocol"][dataset]
    records = [r for r in summary.played if r["dataset"] == dataset and r["domain"] == domain and not r["excluded"]]
    if not records:
        return None
    t = tau2_compat.load()
    tasks = {r["task_id"]: domains.find_task(domain, r["task_split"], task_id=r["task_id"]) for r in records}
    stamps = [stamp for r in records for stamp in r["clock"]["messages"] if stamp]
    results: Results = t.Results.model_validate(
        {
            "timestamp": min(stamps, default=EPOCH),
            "info": _info(summary.manifest["subject"], part, domain, next(iter(tasks.values()))),
            "tasks": [task.model_dump(mode="json") for task in tasks.values()],
            "simulations": [_simulation(record, part["attempts"]) for record in records],
        }
    )
    return results


def _info(subject: dict[str, Any], part: DatasetProtocol, domain: str, task: Task) -> dict[str, Any]:
    solo = part["agent_type"] == "solo"
    kwargs = tau2_compat.environment_kwargs(domain, task, {})
    environment = tau2_compat.build_environment(domain, solo=solo, env_kwargs=kwargs)
    implementations = {"llm": "llm_agent", "gt": "llm_agent_gt", "solo": "llm_agent_solo"}
    return {
        "git_commit": part["tau2"]["commit"] or f"{part['tau2']['distribution']} {part['tau2']['version']}",
        "num_trials": part["attempts"],
        "max_steps": part["limits"]["max_steps"],
        "max_errors": part["limits"]["max_errors"],
        "user_info": {
            "implementation": "dummy_user" if solo else "user_simulator",
            "llm": part["user_model"] or None,
            "llm_args": part["user_args"],
        },
        "agent_info": {
            "implementation": implementations[part["agent_type"]],
            "llm": subject.get("model") or subject["name"],
            "llm_args": {**part["sampling"], **(subject.get("args") or {})},
        },
        "environment_info": environment.get_info(include_tool_info=False).model_dump(mode="json"),
    }


def _simulation(record: Record, attempts: int) -> dict[str, Any]:
    stamps = record["clock"]["messages"]
    messages = [{**m, "timestamp": stamp} for m, stamp in zip(record["messages"], stamps, strict=True)]
    known = [stamp for stamp in stamps if stamp]
    return {
        "id": simulation_id(f"{record['dataset']}/{record['item']}/{record['attempt']}"),
        "task_id": record["task_id"],
        "timestamp": known[0] if known else EPOCH,
        "start_time": known[0] if known else EPOCH,
        "end_time": known[-1] if known else EPOCH,
        "duration": record["clock"]["total_time"],
        "termination_reason": scoring.tau2_reason(Termination(record["termination"])).value,
        "agent_cost": record["cost"].get("policy", 0.0),
        "user_cost": record["cost"].get("user", 0.0),
        "reward_info": record["reward_info"],
        "messages": messages,
        "trial": record["repeat"] * attempts + record["attempt"],
    }


def simulation_id(name: str) -> str:
    """The same for the same episode in every run."""
    return str(uuid.UUID(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()))
