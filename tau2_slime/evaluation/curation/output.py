"""What curation writes: a task file for each domain or prompt data, and the report of what was left out and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tau2_slime.config.task_split import short_name
from tau2_slime.data.rows import row_content
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.curation.choice import Verdict
from tau2_slime.runtime.files import write_atomically
from tau2_slime.world import domains

REPORT, PROMPT_DATA = "curation.json", "curated_tasks.jsonl"


def write(folder: Path, verdicts: Sequence[Verdict], *, as_prompt_data: bool, replace: bool) -> list[Path]:
    """Write the tasks that stay in, and the report; the files of tasks.

    Raises:
        ConfigError: nothing stays in, or a file of that name holds other content and ``replace`` is not given.
        OSError: the folder cannot be written.
    """
    kept = [verdict for verdict in verdicts if not verdict.reason]
    if not kept:
        raise ConfigError(f"no task stays in of {len(verdicts)}: {reasons(verdicts)}")
    texts = {PROMPT_DATA: _rows(kept)} if as_prompt_data else _task_files(kept)
    for name, text in texts.items():
        path = folder / name
        if not replace and path.exists() and path.read_text(encoding="utf-8") != text:
            there = sum(1 for line in path.read_bytes().splitlines() if line.strip())
            raise ConfigError(
                f"{path} holds other tasks ({there}; {len(kept)} are to be written): name another --output-dir, or replace "
                "them with --force"
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    report = {"kept": len(kept), "left_out": counted(verdicts), "tasks": [verdict.plain() for verdict in verdicts]}
    write_atomically(folder / REPORT, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return [folder / name for name in texts]


def counted(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Reason -> tasks, the most frequent first."""
    found = Counter(verdict.reason for verdict in verdicts if verdict.reason)
    return dict(found.most_common())


def reasons(verdicts: Sequence[Verdict]) -> str:
    """`counted` in words."""
    return "; ".join(f"{count} {reason}" for reason, count in counted(verdicts).items())


def _rows(kept: Sequence[Verdict]) -> str:
    rows = []
    for verdict in kept:
        domain, split, task_id = verdict.key
        rows.append(row_content(domain, split, domains.position_of(domain, split, task_id), task_id))
    return "".join(json.dumps(row) + "\n" for row in rows)


def _task_files(kept: Sequence[Verdict]) -> dict[str, str]:
    """File name -> native tasks. Where two tasks of a domain have one id, the later one gets its split's name before it."""
    lines: dict[str, list[str]] = {}
    taken: set[tuple[str, str]] = set()
    for verdict in kept:
        domain, split, _ = verdict.key
        assert verdict.task is not None
        content = verdict.task.model_dump(mode="json")
        while (domain, content["id"]) in taken:
            content["id"] = f"{short_name(split)}/{content['id']}"
        taken.add((domain, content["id"]))
        lines.setdefault(f"{domain}_curated.jsonl", []).append(json.dumps(content, ensure_ascii=False) + "\n")
    return {name: "".join(of_domain) for name, of_domain in lines.items()}
