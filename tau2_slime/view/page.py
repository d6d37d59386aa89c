"""The viewer's page: as one file with everything in it, or as what the server sends first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.pages import View, as_json, pack, packed, render_page
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime.files import write_atomically
from tau2_slime.view.beside_gold import whole_view
from tau2_slime.view.curves import Curves
from tau2_slime.view.rows import EpisodeRow, row_of

if TYPE_CHECKING:
    from tau2_slime.diagnosis.findings import Diagnosis
    from tau2_slime.policy.checkpoint import CheckpointProfile

_SCRIPTS = ("list", "curves", "compare")


def write_page(
    path: Path,
    trajectories: Iterable[Trajectory],
    *,
    title: str,
    rows: Sequence[EpisodeRow] | None = None,
    diagnoses: Sequence[Diagnosis] | None = None,
    curves: Curves | None = None,
    language: CheckpointProfile | None = None,
    world: bool = True,
    unreadable: Sequence[str] = (),
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the page to ``path`` and return its size in bytes.

    ``rows``: one for each of ``trajectories``, where the caller has them; so ``diagnoses``. ``curves``: an empty `Curves`;
    None: the page has no curves. ``world``: replay the tool calls in τ² for databases and diagnosis.
    ``unreadable``: a line for all that is not an episode. ``advance`` is told how many episodes are done, of how many.

    Raises:
        OSError: the file cannot be written.
    """
    if rows is None:
        trajectories = list(trajectories)
        rows = [row_of(one, name=one.name, run="", series=one.kind, step=one.step or 0) for one in trajectories]
    views: list[View] = []
    for row, one in zip(rows, trajectories, strict=True):
        advance(len(views), len(rows))
        known = diagnoses[len(views)] if diagnoses is not None else None
        view = whole_view(one, language, replay=world, known=known)
        mark(row, view)
        views.append(view)
    advance(len(rows), len(rows))
    if curves is not None:
        curves.add(rows)
    shown = overview(rows, curves, unreadable) | {"title": title}
    first = {"overview": packed(as_json(shown))}
    page = render_page(
        __package__, "page", pack(views, language), content(title), scripts=_SCRIPTS, first=first
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return len(page)


def live_page(title: str) -> str:
    """The page that asks its server for everything."""
    policy = "; connect-src 'self'"
    return render_page(__package__, "page", {}, content(title, live=True), scripts=_SCRIPTS, policy=policy)


def content(title: str, *, live: bool = False) -> Mapping[str, object]:
    """The template's variables."""
    return {"title": title, "live": live}


def overview(rows: Sequence[EpisodeRow], curves: Curves | None, problems: Sequence[str]) -> dict[str, Any]:
    """What the page knows before anybody opens an episode: ``rows``, ``curves`` (see `Curves.shown`), ``problems``."""
    return {
        "rows": [row.shown() for row in rows],
        "curves": curves.shown() if curves is not None else None,
        "problems": list(problems),
        "success": SUCCESS,
    }


def mark(row: EpisodeRow, view: View) -> None:
    """Write the diagnosis of an episode into its row, unless the run has done so."""
    found = view["diagnosis"]
    if found is not None:
        row.who, row.what = found["who"], found["what"]
    elif row.reward is not None and row.reward >= SUCCESS:
        row.who, row.what = "none", "none"
