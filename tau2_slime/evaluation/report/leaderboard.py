"""A submission to τ²'s leaderboard, as τ²'s own `submit` tools accept it; refused where its numbers would not compare."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.report.tau2_results import results_of
from tau2_slime.evaluation.statistics.summary import Summary, read_folder
from tau2_slime.evaluation.store.protocol import DatasetProtocol
from tau2_slime.outcome import Termination
from tau2_slime.runtime.files import write_atomically

if TYPE_CHECKING:
    from tau2.data_model.simulation import Results

DOMAINS = ("retail", "airline", "telecom")
TRIALS = 4
LIMITS = {"max_steps": 200, "max_errors": 10}
"""τ²'s own."""
_SCRIPTED = "scripted"


@dataclass(frozen=True)
class Submitter:
    """Who sends it."""

    organization: str
    email: str


def write_submission(runs: Sequence[Path], folder: Path, submitter: Submitter) -> dict[str, Any]:
    """Write ``submission.json`` and ``trajectories/<domain>.json``, and return the submission as JSON has it.

    Args:
        runs: folders of evaluations that together hold every domain of `DOMAINS` once.

    Raises:
        ConfigError: the folder holds something, or the runs do not compare with others'; the message says all that is wrong.
        OSError: a file cannot be written.
    """
    try:
        from tau2.scripts.leaderboard import prepare_submission as tools
        from tau2.scripts.leaderboard.submission import Submission
        from tau2.scripts.leaderboard.verify_trajectories_public import check_num_trials, check_tasks
    except ImportError as error:
        raise ConfigError(f"the installed τ² has no tools for submissions ({error})") from error
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; name another folder with --output-dir")
    found: dict[str, Results] = {}
    faults: list[str] = []
    parts: list[tuple[Summary, DatasetProtocol]] = []
    for path in runs:
        summary = read_folder(path)
        for dataset, part in summary.manifest["protocol"].items():
            for domain in sorted({item.partition("/")[0] for item in part["tasks"]}):
                where = f"{path.name} {dataset} {domain}"
                faults += [f"{where}: {fault}" for fault in _faults(summary, dataset, part, domain)]
                results = results_of(summary, dataset, domain)
                if domain in found:
                    faults.append(f"{where}: {domain} was there before; name runs that hold each domain once")
                if results is None:
                    continue
                found[domain] = results
                parts.append((summary, part))
                for check in (check_tasks, check_num_trials):
                    is_right, why = check(results)
                    faults += [] if is_right else [f"{where}: {why[:300]}"]
    faults += [f"there are no episodes of {domain}" for domain in DOMAINS if domain not in found]
    if not faults:
        is_right, why = tools.validate_submission_traj_set(list(found.values()))
        faults += [] if is_right else [why[:300]]
    if faults:
        raise ConfigError("this does not compare with the leaderboard's numbers:\n- " + "\n- ".join(faults))
    _, scores, model, user = tools.get_metrics(list(found.values()))
    kind, notes = _kind(parts)
    made = Submission.model_validate(
        {
            "model_name": model,
            "organization": submitter.organization,
            "submission_date": datetime.date.today(),
            "contact_info": {"email": submitter.email},
            "results": {domain: _percent(scores[domain].model_dump()) for domain in DOMAINS},
            "methodology": {
                "evaluation_date": max(str(one.timestamp) for one in found.values())[:10],
                "tau2_bench_version": parts[0][1]["tau2"]["version"],
                "user_simulator": user,
                "notes": notes,
            },
            **({"submission_type": kind} if "submission_type" in Submission.model_fields else {}),
        }
    )
    (folder / "trajectories").mkdir(parents=True)
    for domain, results in found.items():
        write_atomically(folder / "trajectories" / f"{domain}.json", results.model_dump_json(indent=1))
    write_atomically(folder / "submission.json", made.model_dump_json(indent=2, exclude_none=True) + "\n")
    written: dict[str, Any] = made.model_dump(mode="json", exclude_none=True)
    return written


def _faults(summary: Summary, dataset: str, part: DatasetProtocol, domain: str) -> Iterator[str]:
    """What keeps one dataset's episodes of ``domain`` from comparing with other people's."""
    if domain not in DOMAINS:
        yield f"the leaderboard has {', '.join(DOMAINS)}"
        return
    if summary.manifest["subject"].get("kind") == "embedded":
        yield "the embedded policy plays gold; evaluate a model"
    if part["agent_type"] != "llm" or part.get("agent_path") or part.get("agent_strategy", "native") != "native":
        yield "its agent is not τ²'s: play it with agent_type llm, agent_strategy native and without agent_path"
    if part["user_model"].startswith(_SCRIPTED) or part.get("user_strategy", "llm") != "llm":
        yield f"the user {part['user_model']!r} is not a model in τ²'s own simulator (--user-model, user_strategy llm)"
    for name, wanted in LIMITS.items():
        if part["limits"].get(name) != wanted:
            yield f"{name} is {part['limits'].get(name)}, τ²'s is {wanted}"
    if part["attempts"] < TRIALS:
        yield f"{part['attempts']} attempts a task; pass^{TRIALS} needs {TRIALS} (--attempts {TRIALS})"
    own = [record for record in summary.played if record["dataset"] == dataset and record["domain"] == domain]
    splits = sorted({record["task_split"] for record in own if record["task_split"] != "base"})
    if splits:
        yield f"its tasks are of {', '.join(splits)}, not of the split base (--split base)"
    excluded = Counter(record["blame"] for record in own if record["excluded"])
    if excluded:
        told = ", ".join(f"{count} by the {blame}" for blame, count in excluded.items())
        yield f"spoilt episodes: {told}; run the same `tau2-slime eval` again to play them anew"
    cut = sum(record["termination"] == Termination.MAX_TURNS for record in own)
    if cut:
        yield f"episodes cut off by max_turns, which τ² does not have: {cut}; evaluate with --set max_turns=200"


def _kind(parts: Sequence[tuple[Summary, DatasetProtocol]]) -> tuple[str, str]:
    """(standard or custom, the note that says it): weights of one's own on a server are custom."""
    own = sorted(
        str(summary.manifest["subject"].get("checkpoint") or summary.manifest["subject"].get("name"))
        for summary, _ in parts
        if summary.manifest["subject"].get("kind") != "litellm"
    )
    if own:
        return "custom", f"custom: weights served by sglang ({own[0]}), trained or not; agent prompt and tools are τ²'s"
    return "standard", "standard: a model behind an API; agent prompt and tools are τ²'s"


def _percent(scores: dict[str, float | None]) -> dict[str, float | None]:
    """τ²'s scores with pass^k as the leaderboard shows it, in per cent."""
    return {
        name: value * 100 if value is not None and name.startswith("pass_") else value for name, value in scores.items()
    }
