"""The one page: episodes, and beside them a report, curves, a conversation. It loads nothing from elsewhere.

The server of `view` sends it, and `inspect --html`, `view --html`, `diagnose --html` and an evaluation's report.html are it
with everything inside. Templates, styles and scripts are in ``assets``.

What a model, a user or a tool wrote gets into the page in one of three ways. A template escapes it. Or it is part of the
packed episodes (`packing`), which the script unpacks when a reader opens one. Or a server sends it as JSON. The script puts
it into the page as text. The page's content security policy would not let anything else run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tau2_slime.inspector.curves import Curves
from tau2_slime.inspector.packing import as_json, packed
from tau2_slime.inspector.rows import EpisodeRow
from tau2_slime.outcome import SUCCESS

_PACKAGE = "tau2_slime.inspector"
_STYLES = ("conversation", "page", "report")
_SCRIPTS = ("conversation", "list", "curves", "compare", "page")
Report = Mapping[str, object]
"""The variables of ``report.html.j2``; `evaluation.report.html.report_of` makes them."""


def whole_page(title: str, first: Mapping[str, Any], episodes: Mapping[str, str], report: Report | None = None) -> str:
    """The page with everything in it. ``first``: an `overview`; ``episodes``: what `packing.pack` returns."""
    return _render(title, report=report, first=packed(as_json({**first, "title": title})), episodes=episodes)


def live_page(title: str, *, reports: bool = False) -> str:
    """The page that asks its server for everything; ``reports``: for a report, too."""
    return _render(title, live=True, reports=reports)


def report_part(report: Report) -> str:
    """What a server answers that is asked for a report."""
    return _environment().get_template("report.html.j2").render(report).encode("utf-8", "replace").decode()


def overview(rows: Sequence[EpisodeRow], curves: Curves | None, problems: Sequence[str]) -> dict[str, Any]:
    """What the page knows before anybody opens an episode: ``rows``, ``curves`` (see `Curves.shown`), ``problems``."""
    return {
        "rows": [row.shown() for row in rows],
        "curves": curves.shown() if curves is not None else None,
        "problems": list(problems),
        "success": SUCCESS,
    }


def _render(
    title: str,
    *,
    live: bool = False,
    reports: bool = False,
    report: Report | None = None,
    first: str = "",
    episodes: Mapping[str, str] | None = None,
) -> str:
    style, script = (
        "".join(_asset(f"{name}.{kind}") for name in names) for names, kind in ((_STYLES, "css"), (_SCRIPTS, "js"))
    )
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(
            report or {},
            title=title,
            live=live,
            with_report=report is not None,
            has_report=reports or report is not None,
            first=first,
            episodes=episodes or {},
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )
    # A model can write half of a surrogate pair, which is not text in any encoding.
    return text.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    loader = PackageLoader(_PACKAGE, "assets")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _asset(name: str) -> str:
    return resources.files(_PACKAGE).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
