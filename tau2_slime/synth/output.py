"""The files of a run: tasks, splits by customer, provenance, rejects and the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.policy_rules.check import POLICIES
from tau2_slime.runtime.files import write_atomically
from tau2_slime.synth import page, report
from tau2_slime.synth.generate import SAMPLER_VERSION
from tau2_slime.synth.verify import GATES
from tau2_slime.world import tau2_compat

DEV_SHARE = 10
"""One customer in so many is of the dev split."""


def is_dev(domain: str, user: str) -> bool:
    """True if the tasks of ``user`` are kept for dev. The same in every run, whatever the seed."""
    return int(hashlib.sha256(f"{domain} {user}".encode()).hexdigest(), 16) % DEV_SHARE == 0


def as_json(value: object) -> str:
    """JSON as this package writes it: the same bytes for the same content."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def provenance(row: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Where one accepted task comes from."""
    domain, difficulty, seed, slot, attempt = row["key"]
    return {
        "id": row["task"]["id"],
        "domain": domain,
        "difficulty": difficulty,
        "seed": seed,
        "slot": slot,
        "attempts": attempt + 1,
        "sampler_version": SAMPLER_VERSION,
        "tau2": tau2_compat.version(),
        "database": hashes[domain],
        "source_user": row["user"],
        "intents": row["intents"],
        "must_say": row["must_say"],
        "stated": row["stated"],
        "writes": row["writes"],
        "calls": row["calls"],
        "gates": dict.fromkeys(GATES, "held") | {"G12": "not asked for"},
        "writer": row.get("writer", {"model": None, "cost": 0.0}),
    }


def write_all(
    folder: Path, rows: Sequence[Mapping[str, Any]], *, shifts: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Write every file of a run into ``folder`` and return the summaries, one a domain.

    ``rows``: the events of the run in their order. ``shifts``: domain -> how failures moved the mix (`aim.shift_of`).
    """
    accepted = [row for row in rows if row["accepted"]]
    names = list(dict.fromkeys(row["key"][0] for row in rows))
    hashes = {name: _database_hash(name) for name in names}
    write_atomically(folder / "tasks.json", as_json([row["task"] for row in accepted]))
    for name in names if len(names) > 1 else ():  # what plays a task file plays one domain
        of_domain = [row["task"] for row in accepted if row["key"][0] == name]
        write_atomically(folder / f"{name}_tasks.json", as_json(of_domain))
    split: dict[str, list[str]] = {"train": [], "dev": []}
    for row in accepted:
        split["dev" if is_dev(row["key"][0], row["user"]) else "train"].append(row["task"]["id"])
    write_atomically(folder / "split_tasks.json", as_json(split))
    _write_lines(folder / "provenance.jsonl", [provenance(row, hashes) for row in accepted])
    rejected = [
        {"task": r["task"], "failed": r["failed"], "intents": r["intents"], "key": r["key"]}
        for r in rows
        if not r["accepted"]
    ]
    _write_lines(folder / "rejected.jsonl", rejected)
    summaries = [report.summary(name, [row for row in rows if row["key"][0] == name]) for name in names]
    for found in summaries:
        if shifts and found["domain"] in shifts:
            found["shift"] = shifts[found["domain"]]
    write_atomically(folder / "report.json", as_json(summaries))
    write_atomically(folder / "report.html", page.page(summaries, rows))
    write_atomically(folder / "report.md", report.markdown(summaries, rows))
    return summaries


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _database_hash(domain: str) -> str:
    assert domain in POLICIES
    return str(tau2_compat.build_environment(domain, solo=False, env_kwargs={}).get_db_hash())


def read_collection(path: Path) -> list[dict[str, Any]]:
    """The rows of a collection of tasks (``--output-file``); empty if it does not exist yet.

    Raises:
        ConfigError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--output-file {path} cannot be read: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise ConfigError(f"--output-file {path} is not a JSON list of tasks; name another file")
    return rows


def add_to_collection(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add the accepted tasks of a run to a collection, each id once. Returns how many it holds."""
    held = read_collection(path)
    known = {row["id"] for row in held}
    held += [dict(row["task"]) for row in rows if row["accepted"] and row["task"]["id"] not in known]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, as_json(held))
    return len(held)


def ancestor_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The intermediate row of the ancestor's pipeline."""
    actions = row["task"]["evaluation_criteria"]["actions"]
    return {
        "user_id": row["user"],
        "difficulty": row["key"][1],
        "target_action_count": row["writes"],
        "actions": [{"name": a["name"], "arguments": a["arguments"]} for a in actions],
        "scenario_summary": row["task"]["user_scenario"]["instructions"]["reason_for_call"],
    }
