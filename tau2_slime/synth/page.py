"""The report as one HTML page: bars of tools and gates beside the official train split, and three tasks to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tau2_slime.synth.report import LABELS, examples

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right}blockquote{border-left:3px solid #bbb;margin:0;padding-left:1rem}svg text{font:12px system-ui}
svg text.s{font-size:10px}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}svg text{fill:#ddd}}
"""
_ROW, _LABEL, _BAR = 30, 230, 420
"""Pixels."""


def bars(series: Mapping[str, Mapping[str, float]]) -> str:
    """Shares of each name in two or more series, as horizontal bars.

    Args:
        series: name of a series -> name of a bar -> count or share. They become shares of their series.
    """
    names = sorted(
        {n for counts in series.values() for n in counts}, key=lambda n: (-max(c.get(n, 0) for c in series.values()), n)
    )
    colours = ("#3b76b0", "#e08a3c", "#5a9e6f")
    totals = {label: sum(counts.values()) or 1.0 for label, counts in series.items()}
    widest = (
        max((counts.get(n, 0) / totals[label] for label, counts in series.items() for n in names), default=0.0) or 1.0
    )
    height = _ROW * len(names) + 24
    parts = [f'<svg role="img" width="{_LABEL + _BAR + 70}" height="{height}">']
    for at, (label, colour) in enumerate(zip(series, colours, strict=False)):
        parts.append(f'<rect x="{_LABEL + 150 * at}" y="2" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{_LABEL + 14 + 150 * at}" y="12">{escape(label)}</text>')
    thick = (_ROW - 6) / max(1, len(series))
    for row, name in enumerate(names):
        top = 22 + _ROW * row
        parts.append(f'<text x="0" y="{top + 15}">{escape(name)}</text>')
        for at, ((label, counts), colour) in enumerate(zip(series.items(), colours, strict=False)):
            share = counts.get(name, 0) / totals[label]
            y = top + thick * at
            parts.append(
                f'<rect x="{_LABEL}" y="{y:.1f}" width="{_BAR * share / widest:.1f}" height="{thick - 1:.1f}" '
                f'fill="{colour}">'
                f"<title>{escape(label)}: {share:.1%}</title></rect>"
                f'<text class="s" x="{_LABEL + 4 + _BAR * share / widest:.1f}" y="{y + thick - 2:.1f}">{share:.1%}</text>'
            )
    return "".join([*parts, "</svg>"])


def page(summaries: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """The whole page; it needs no network."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Synthetic tasks</title>",
        f"<style>{_STYLE}</style>",
    ]
    parts.append("<h1>Synthetic tasks</h1>")
    for found in summaries:
        parts += [
            f"<h2>{escape(found['domain'])}</h2>",
            f"<p>{found['accepted']} of {found['proposals']} proposals accepted ({found['yield']:.1%}), "
            f"{found['users']} customers. Official tool bigrams covered: {found['official_bigrams_covered']:.0%}; "
            f"Jensen-Shannon divergence of tools: {found['js_divergence_of_tools']:.3f} bits.</p>",
            "<h3>Tools, share of all gold calls</h3>",
            bars(found["tools"]),
        ]
        if found.get("shift"):
            for name, shares in found["shift"].items():
                if not shares:
                    continue
                counts = {when: {one["name"]: one[when] for one in shares} for when in ("before", "after")}
                what = "what is drawn" if name == "intents" else "writing tools"
                parts += [f"<h3>Mix shifted by failures: {what}, share of the proposals</h3>", bars(counts)]
        if found["rejected_by"]:
            parts += ["<h3>Rejected by gate, share of the rejections</h3>", bars({"rejections": found["rejected_by"]})]
        own, train = found["measures"]["synthetic"], found["measures"]["official train"]
        cells = "".join(
            f"<tr><td>{escape(LABELS[n])}<td class=n>{v:.4g}<td class=n>{train[n]:.4g}" for n, v in own.items()
        )
        parts.append(f"<table><tr><th>measure<th>synthetic<th>official train{cells}</table>")
    parts.append("<h2>Three tasks</h2>")
    for row in examples(rows):
        told = row["task"]["user_scenario"]["instructions"]
        reason = told["reason_for_call"] if isinstance(told, Mapping) else told
        calls = "".join(
            f"<li><code>{escape(a['name'])}</code> {escape(str(a['arguments']))}"
            for a in row["task"]["evaluation_criteria"]["actions"]
        )
        words = escape(reason).replace("\n", "<br>")
        parts.append(f"<h3>{escape(row['task']['id'])}</h3><blockquote>{words}</blockquote><ol>{calls}</ol>")
    return "\n".join(parts) + "\n"
