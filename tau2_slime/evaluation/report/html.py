"""report.html: the viewer's page with what was measured on it. Tables, a map of task x attempt, every conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tau2_slime.diagnosis.beside_gold import mark, whole_view
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.report.markdown import heading
from tau2_slime.evaluation.report.tables import all_tables, number
from tau2_slime.evaluation.statistics.intervals import share_interval
from tau2_slime.evaluation.statistics.summary import Summary, outcome_of
from tau2_slime.inspector import row_formats
from tau2_slime.inspector.curves import Curves
from tau2_slime.inspector.episode_view import View
from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.packing import pack
from tau2_slime.inspector.page import Report, overview, whole_page
from tau2_slime.inspector.rows import EpisodeRow, row_of
from tau2_slime.inspector.tokenizers import language_of

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile

LIMIT = 4_500_000
"""Bytes of the whole file. What is longer loses its tokens, and then the ends of its longest texts."""
CUTS = (4000, 1500, 500, 200, 60)
"""Characters that are kept of every text."""
COMPARED = 300
"""Failed episodes that are replayed, for the database beside gold's and the diagnosis: one takes up to 0.1 s."""
SIGNS = {"solved": "✓", "failed": "✗", "excluded": "–", "not played": ""}


def render(summary: Summary) -> str:
    """The whole page."""
    title, report = f"τ² evaluation: {summary.manifest['subject']['name']}", report_of(summary)
    language, left = _language(summary), COMPARED
    rows: list[EpisodeRow] = []
    views: list[View] = []
    for record in summary.played:
        replay = outcome_of(record) == "failed" and left > 0
        left -= replay
        row, view = _row_and_view(record, language, replay=replay)
        rows.append(row)
        views.append(view)
    curves = Curves(share_interval)
    curves.add(rows)
    first = overview(rows, curves, ())
    room = LIMIT - len(whole_page(title, first, {}, report).encode())
    return whole_page(title, first, _packed(views, language, room), report)


def report_of(summary: Summary) -> Report:
    """What ``report.html.j2`` shows: sentences, tiles, tables, curves over k, and every attempt with its conversation."""
    groups = [group for group in summary.groups if group.kind == "user"]
    named = [(group.name, group.scores) for group in groups]
    if not groups:
        named = [(next(unit.user_model or "no user" for unit in summary.units), summary.overall.scores)]
    return {
        "facts": heading(summary),
        "tiles": _tiles(summary),
        "tables": all_tables(summary),
        "ks": sorted({k for _, scores in named for k in scores.pass_hat}),
        "pass_hat": [(name, scores.pass_hat) for name, scores in named],
        "pass_at": [(name, scores.pass_at) for name, scores in named],
        "grid": _grid(summary),
        "signs": SIGNS,
    }


def _grid(summary: Summary) -> list[tuple[str, list[tuple[str, list[tuple[str, str, str | None]]]]]]:
    """Dataset -> task -> attempts, each with its outcome, what hovering says, and the episode's name in an address."""
    out: dict[str, list[tuple[str, list[tuple[str, str, str | None]]]]] = {}
    for unit, records in summary.grid():
        task = unit.task.split("/", 2)[2]
        cells: list[tuple[str, str, str | None]] = []
        for attempt, record in enumerate(records, 1):
            if record is None:
                cells.append(("not played", f"attempt {attempt}: not played", None))
            else:
                words = f"{task}, attempt {attempt}: {outcome_of(record)}, {record['termination']}"
                name = quote(row_formats.name_in_evaluation(record), safe="", errors="replace")
                cells.append((outcome_of(record), words, name))
        out.setdefault(unit.dataset, []).append((task, cells))
    return list(out.items())


def _tiles(summary: Summary) -> list[tuple[str, str]]:
    """The numbers that matter most: value and meaning."""
    scores, overall = summary.overall.scores, summary.overall
    tiles: list[tuple[str, str]] = []
    if one := scores.pass_hat.get(1):
        tiles.append((number(one), f"pass^1, 95% {one.low:.3f} to {one.high:.3f}"))
    most = max(scores.pass_hat, default=1)
    if most > 1:
        tiles.append((number(scores.pass_hat[most]), f"pass^{most}: all {most} attempts succeed"))
        tiles.append((number(scores.pass_at[most]), f"pass@{most}: at least one does"))
    if scores.noise is not None and scores.noise.run > 0:
        tiles.append((f"±{scores.noise.floor:.3f}", "a repetition on the same tasks may differ by"))
    tiles.append((f"{overall.played:,}", f"of {overall.planned:,} episodes, {scores.excluded} excluded"))
    if summary.bills:
        tiles.append((f"${sum(bill.cost for bill in summary.bills.values()):.2f}", "for the models"))
    return tiles


# ---- conversations -----------------------------------------------------------------------------------------------------


def _packed(views: list[View], language: CheckpointProfile | None, room: int) -> dict[str, str]:
    """Every conversation in at most ``room`` bytes: whole, without tokens, or with its long texts cut."""
    packed = pack(views, language)
    for cut in (None, *CUTS):
        if sum(map(len, packed.values())) <= room:
            return packed
        packed = pack([_shortened(view, cut) for view in views])
    return packed if sum(map(len, packed.values())) <= room else {}


def _language(summary: Summary) -> CheckpointProfile | None:
    """The policy's tokenizer, if the records hold its tokens and it can be loaded."""
    if not any(record.get("ledger") for record in summary.played):
        return None
    subject = summary.manifest["subject"]
    found = FoundEpisodes(checkpoint=subject.get("checkpoint") or None, embedded=subject["kind"] == "embedded")
    try:
        return language_of(found, None)
    except ConfigError:
        return None


def _row_and_view(
    record: Mapping[str, Any], language: CheckpointProfile | None, *, replay: bool
) -> tuple[EpisodeRow, View]:
    one = row_formats.from_evaluation(record, "")
    row = row_of(one, name=one.name, run="", series=record["dataset"], step=1)
    row.stepless = True
    view = whole_view(one, language, replay=replay)
    mark(row, view)
    if not replay:
        view["database"]["note"] = "not compared here: tau2-slime view compares every episode of this folder"
    view["title"] = f"{record['dataset']}: task {record['task_id']}, attempt {record['attempt'] + 1}"
    stats, tokens, cost = record["stats"], record["tokens"], sum(record["cost"].values())
    view["facts"] += [
        ("turns", f"{stats['agent_turns']} of the agent, {stats['user_turns']} of the user"),
        ("tokens", f"{tokens['sampled']:,} sampled, {tokens['prompt']:,} in the first prompt"),
        *([("cost", f"${cost:.4f}")] if cost else []),
    ]
    view["warnings"] += [f"earlier try: {earlier['termination']}: {earlier['detail']}" for earlier in record["tries"]]
    return row, view


def _shortened(view: View, cut: int | None) -> View:
    """``view`` without tokens, and without what stands after the first ``cut`` characters of a text."""

    def short(text: str) -> str:
        if cut is None or len(text) <= cut:
            return text
        return f"{text[:cut]} … ({len(text) - cut:,} more characters in simulations.jsonl)"

    entries = [
        {
            **entry,
            "text": short(entry["text"]),
            "calls": [{**call, "arguments": short(call["arguments"])} for call in entry["calls"]],
        }
        for entry in view["entries"]
        if entry["role"] != "prompt"
    ]
    return {
        **view,
        "tokens": None,
        "entries": entries,
        "scenario": [(name, short(text)) for name, text in view["scenario"]],
    }
