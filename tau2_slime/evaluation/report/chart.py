"""pass^k and pass@k over k as SVG: one line per user model, whiskers for the 95% intervals, colours from the page's CSS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tau2_slime.evaluation.statistics.estimates import Estimate

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 14, 40
COLOURS = 8


def chart(title: str, series: Sequence[tuple[str, Mapping[int, Estimate]]]) -> str:
    """One chart; empty if no series has a point."""
    ks = sorted({k for _, points in series for k in points})
    if not ks:
        return ""
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">', *_axes(ks)]
    for i, (_, points) in enumerate(series):
        parts += _line(i, len(series), ks, points)
    parts.append("</svg>")
    legend = "".join(
        f'<li><span class="swatch" style="background:var(--s{i % COLOURS})"></span>{escape(name)}</li>'
        for i, (name, _) in enumerate(series)
    )
    return f'<figure style="margin:0"><h3>{escape(title)}</h3>{"".join(parts)}<ul class="legend">{legend}</ul></figure>'


def _x(k: int, ks: Sequence[int], dodge: float = 0.0) -> float:
    inner = WIDTH - LEFT - RIGHT
    step = inner / len(ks)
    return LEFT + step * (ks.index(k) + 0.5) + dodge


def _y(value: float) -> float:
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)


def _axes(ks: Sequence[int]) -> list[str]:
    parts = []
    for tenth in range(0, 11, 2):
        y = _y(tenth / 10)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for k in ks:
        parts.append(f'<text x="{_x(k, ks):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">k={k}</text>')
    return parts


def _line(i: int, count: int, ks: Sequence[int], points: Mapping[int, Estimate]) -> list[str]:
    # Side by side, so that whiskers do not hide one another.
    room = min(48.0, 0.6 * (WIDTH - LEFT - RIGHT) / len(ks))
    dodge = (i - (count - 1) / 2) * room / max(count, 1)
    colour = f"var(--s{i % COLOURS})"
    places = [(_x(k, ks, dodge), points[k]) for k in ks if k in points]
    path = " ".join(f"{x:.1f},{_y(e.value):.1f}" for x, e in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" opacity=".55"/>']
    for x, e in places:
        low, high, middle = _y(e.low), _y(e.high), _y(e.value)
        parts.append(
            f'<g stroke="{colour}" stroke-width="1.5"><line x1="{x:.1f}" x2="{x:.1f}" y1="{high:.1f}" y2="{low:.1f}"/>'
            f'<line x1="{x - 4:.1f}" x2="{x + 4:.1f}" y1="{high:.1f}" y2="{high:.1f}"/>'
            f'<line x1="{x - 4:.1f}" x2="{x + 4:.1f}" y1="{low:.1f}" y2="{low:.1f}"/></g>'
            f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{colour}"><title>{escape(str(e))}</title></circle>'
        )
    return parts
