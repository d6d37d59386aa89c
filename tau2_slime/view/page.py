"""Episodes -> the viewer's page, as one file with everything in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.diagnosis.beside_gold import mark, whole_view
from tau2_slime.inspector.curves import Curves
from tau2_slime.inspector.episode_view import View
from tau2_slime.inspector.packing import pack
from tau2_slime.inspector.page import Report, overview, whole_page
from tau2_slime.inspector.rows import EpisodeRow, row_of
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.runtime.files import write_atomically

if TYPE_CHECKING:
    from tau2_slime.diagnosis.findings import Diagnosis
    from tau2_slime.policy.checkpoint import CheckpointProfile


def write_page(
    path: Path,
    trajectories: Iterable[Trajectory],
    *,
    title: str,
    rows: Sequence[EpisodeRow] | None = None,
    diagnoses: Sequence[Diagnosis] | None = None,
    curves: Curves | None = None,
    report: Report | None = None,
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
    page = whole_page(title, overview(rows, curves, unreadable), pack(views, language), report).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return len(page)
