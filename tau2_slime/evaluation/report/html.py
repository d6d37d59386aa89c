"""report.html: one file that needs no network. Tables, curves, a heat map of task x attempt, and every conversation."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

from tau2_slime.evaluation.report.chart import chart
from tau2_slime.evaluation.report.markdown import heading
from tau2_slime.evaluation.report.tables import Table, all_tables, number
from tau2_slime.evaluation.statistics.summary import Summary, outcome_of
from tau2_slime.evaluation.store.records import Record
from tau2_slime.evaluation.store.unit import Unit

LIMIT = 4_500_000
"""Bytes of the whole file. What is longer gets its longest texts cut."""
_CUTS = (None, 4000, 1500, 500, 200, 60)

_STATES = {"solved": "✓", "failed": "✗", "excluded": "–", "not played": ""}


def render(summary: Summary) -> str:
    """The whole page."""
    first, *others = all_tables(summary)
    body = [
        f"<h1>τ² evaluation: {escape(str(summary.manifest['subject']['name']))}</h1>",
        '<ul class="facts">' + "".join(f"<li>{_fact(line)}</li>" for line in heading(summary)) + "</ul>",
        _tiles(summary),
        _table(first),
        _charts(summary),
        _maps(summary),
        *(_table(table) for table in others),
    ]
    page = _page("".join(body), "")
    return _page("".join(body), _conversations(summary, LIMIT - len(page.encode())))


def _page(body: str, packed: str) -> str:
    assets = files("tau2_slime.evaluation.report").joinpath("assets")
    css, js = (assets.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>τ² evaluation</title>'
        f'<link rel="icon" href="data:,"><style>{css}</style></head><body><main>{body}</main>'
        '<dialog id="episode"><div class="bar"><h2></h2><button type="button">Close</button></div>'
        '<div class="talk"></div></dialog>'
        f'<script type="text/plain" id="conversations">{packed}</script><script>{js}</script></body></html>\n'
    )


def _fact(line: str) -> str:
    return f'<span class="warning">{escape(line)}</span>' if line.startswith("NOT COMPLETE") else escape(line)


def _tiles(summary: Summary) -> str:
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
    cost = sum(bill.cost for bill in summary.bills.values())
    if summary.bills:
        tiles.append((f"${cost:.2f}", "for the models"))
    cells = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{cells}</div>'


def _table(table: Table) -> str:
    def cell(tag: str, i: int, text: str) -> str:
        return f"<{tag}{' class=text' if i < table.text_columns else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, column) for i, column in enumerate(table.columns))
    rows = "".join(
        f"<tr{' class=strong' if n in table.emphasised else ''}>"
        + "".join(cell("td", i, c) for i, c in enumerate(row))
        + "</tr>"
        for n, row in enumerate(table.rows)
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    inner = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}'
    return f"<section><h2>{escape(table.title)}</h2>{inner}</section>"


def _charts(summary: Summary) -> str:
    groups = [g for g in summary.groups if g.kind == "user"] or [summary.overall]
    users = {unit.user_model or "no user" for unit in summary.units}
    named = [(g.name if g.kind == "user" else next(iter(users)), g.scores) for g in groups]
    if max((max(s.pass_hat, default=1) for _, s in named), default=1) < 2:
        return ""
    hat = chart("pass^k: all k attempts succeed", [(name, s.pass_hat) for name, s in named])
    at = chart("pass@k: at least one of k succeeds", [(name, s.pass_at) for name, s in named])
    return f'<section><h2>By user model</h2><div class="charts">{hat}{at}</div></section>'


def _maps(summary: Summary) -> str:
    """One block per dataset; cells link to their conversations."""
    index = {id(record): i for i, record in enumerate(summary.played)}
    blocks: dict[str, list[str]] = {}
    for unit, records in summary.grid():
        cells = "".join(_cell(unit, i, record, index) for i, record in enumerate(records))
        task = _task(unit)
        row = f'<div class="row"><span class="task" title="{escape(task)}">{escape(task)}</span>'
        blocks.setdefault(unit.dataset, []).append(f'{row}<div class="cells">{cells}</div></div>')
    inner = "".join(f"<div><h3>{escape(name)}</h3>{''.join(rows)}</div>" for name, rows in blocks.items())
    legend = "".join(
        f'<li><span class="cell {state.replace(" ", "-")}" style="width:20px">{sign}</span>{state}</li>'
        for state, sign in _STATES.items()
    )
    return (
        f'<section id="map"><h2>Tasks and attempts</h2><ul class="legend" style="margin:0 0 12px">{legend}</ul>'
        f'<div class="maps">{inner}</div><p class="note">Each cell opens its conversation.</p></section>'
    )


def _task(unit: Unit) -> str:
    return str(unit.task).partition("/")[2].partition("/")[2]


def _cell(unit: Unit, attempt: int, record: Record | None, index: Mapping[int, int]) -> str:
    state = _state(record)
    if record is None:
        return f'<span class="cell not-played" title="attempt {attempt + 1}: not played"></span>'
    words = f"{_task(unit)}, attempt {attempt + 1}: {state}, {record['termination']}"
    return f'<a class="cell {state}" href="#episode-{index[id(record)]}" title="{escape(words)}">{_STATES[state]}</a>'


def _state(record: Record | None) -> str:
    return "not played" if record is None else outcome_of(record)


# ---- conversations -----------------------------------------------------------------------------------------------------


def _conversations(summary: Summary, room: int) -> str:
    """Every conversation, gzipped, in base64; long texts are cut as far as ``room`` bytes demand."""
    for cut in _CUTS:
        packed = _pack(summary.played, cut)
        if len(packed) <= room:
            return packed
    return _pack([], None)


def _pack(records: Sequence[Record], cut: int | None) -> str:
    # A text that occurs often (tool results do) is stored once.
    strings: dict[str, int] = {}

    def intern(text: str) -> int:
        if cut is not None and len(text) > cut:
            text = f"{text[:cut]} … ({len(text) - cut:,} more characters in simulations.jsonl)"
        return strings.setdefault(text, len(strings))

    episodes = []
    for record in records:
        messages = [
            [
                message["role"],
                intern(message["content"]) if message.get("content") else -1,
                [
                    [call["name"], intern(json.dumps(call["arguments"], ensure_ascii=False))]
                    for call in message.get("tool_calls") or []
                ],
                int(bool(message.get("error"))),
            ]
            for message in record["messages"]
        ]
        title = f"{record['dataset']}: task {record['task_id']}, attempt {record['attempt'] + 1}"
        episodes.append({"title": title, "facts": _facts(record), "messages": messages})
    data = json.dumps({"strings": list(strings), "episodes": episodes}, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(data.encode(), 6, mtime=0)).decode()


def _facts(record: Record) -> list[list[str]]:
    facts = [["outcome", f"{_state(record)} ({record['termination']}, {record['blame']})"]]
    if record["detail"]:
        facts.append(["detail", record["detail"]])
    breakdown = (record["reward_info"] or {}).get("reward_breakdown")
    if record["reward"] is not None:
        parts = ", ".join(f"{name} {value:g}" for name, value in (breakdown or {}).items())
        facts.append(["reward", f"{record['reward']:g}" + (f" ({parts})" if parts else "")])
    facts.append(["user", record["user_model"] or "none"])
    stats = record["stats"]
    facts.append(["turns", f"{stats['agent_turns']} of the agent, {stats['user_turns']} of the user"])
    facts.append(
        ["tokens", f"{record['tokens']['sampled']:,} sampled, {record['tokens']['prompt']:,} in the first prompt"]
    )
    cost = sum(record["cost"].values())
    if cost:
        facts.append(["cost", f"${cost:.4f}"])
    for earlier in record["tries"]:
        facts.append(["earlier try", f"{earlier['termination']}: {earlier['detail']}"])
    return facts
