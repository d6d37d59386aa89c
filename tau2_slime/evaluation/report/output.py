"""The files that a run leaves beside its records."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tau2_slime.evaluation.report import html, markdown
from tau2_slime.evaluation.report.compliance import compliance_json
from tau2_slime.evaluation.report.tau2_results import write_results
from tau2_slime.evaluation.statistics.summary import Group, Summary
from tau2_slime.runtime.files import write_atomically


def write_reports(summary: Summary, folder: Path) -> None:
    """report.html, report.md, summary.json and τ²'s results, each in one step."""
    files = {
        "report.html": html.render(summary),
        "report.md": markdown.render(summary),
        "summary.json": json.dumps(summary_json(summary), indent=2, ensure_ascii=False) + "\n",
    }
    for name, text in files.items():
        write_atomically(folder / name, text)
    write_results(summary, folder)


def summary_json(summary: Summary) -> dict[str, Any]:
    """The content of summary.json: the numbers of every table, for scripts."""
    return {
        "subject": summary.manifest["subject"],
        "end": summary.end,
        "notes": summary.notes,
        "domain_weighted_pass_hat_1": summary.domain_weighted,
        "groups": [_group(group) for group in summary.groups],
        "compliance": compliance_json(summary),
        "costs": [
            {"role": role, "model": model, **asdict(bill)} for (role, model), bill in sorted(summary.bills.items())
        ],
    }


def _group(group: Group) -> dict[str, Any]:
    scores = group.scores
    return {
        "kind": group.kind,
        "name": group.name,
        "tasks": scores.units,
        "planned": group.planned,
        "played": group.played,
        "excluded": scores.excluded,
        "pass_hat": {str(k): asdict(e) for k, e in scores.pass_hat.items()},
        "pass_at_unbiased": {str(k): asdict(e) for k, e in scores.pass_at.items()},
        "pass_at_first_k": {str(k): v for k, v in scores.pass_first.items()},
        "mean_reward": asdict(scores.reward) if scores.reward else None,
        "pass_hat_1_if_excluded_were_failures": scores.failures_as_zero,
        "noise_floor": scores.noise.floor if scores.noise else None,
        "repeats": scores.repeats,
        "baselines": group.baselines,
        "metrics": {name: asdict(found) for name, found in group.metrics.items()},
    }
