"""report.md: the tables, and what was measured."""

from __future__ import annotations

from tau2_slime.evaluation.report.table import markdown_page
from tau2_slime.evaluation.report.tables import all_tables
from tau2_slime.evaluation.statistics.summary import Summary
from tau2_slime.evaluation.store.manifest import protocol_digest


def heading(summary: Summary) -> list[str]:
    """What was evaluated, in short sentences."""
    manifest, overall = summary.manifest, summary.overall
    tau2 = next(iter(manifest["protocol"].values()))["tau2"]
    commit = f" at commit {tau2['commit'][:12]}" if tau2["commit"] else ""
    said = [
        f"Policy: {manifest['subject']['name']} ({manifest['subject']['kind']}).",
        f"{tau2['distribution']} {tau2['version']}{commit}; tau2_slime {manifest['software']['tau2_slime']}; "
        f"run {protocol_digest(manifest)}.",
    ]
    if overall.played < overall.planned:
        said.append(f"NOT COMPLETE: {overall.played} of {overall.planned} episodes ({summary.end}).")
    else:
        said.append(f"{overall.planned} episodes.")
    return [*said, *summary.notes]


def render(summary: Summary) -> str:
    """The whole report as Markdown."""
    return markdown_page("τ² evaluation", heading(summary), all_tables(summary))
