"""The inspector's page: every episode of a file or folder, to be filtered, read and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.inspector.database_diff import DatabaseDiff, compare_with_gold
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.inspector.viewer import episode_view, pack, render_page
from tau2_slime.outcome import SUCCESS
from tau2_slime.runtime.files import write_atomically

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


def write_page(
    path: Path,
    trajectories: Sequence[Trajectory],
    *,
    title: str,
    language: CheckpointProfile | None = None,
    world: bool = True,
    unreadable: Sequence[str] = (),
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the page to ``path`` and return its size in bytes.

    ``world``: replay the tool calls in τ² to compare databases. ``unreadable``: a line for all that is not an episode.
    ``advance`` is told how many episodes are done, of how many.

    Raises:
        OSError: the file cannot be written.
    """
    skipped = DatabaseDiff(note="not compared (--no-world)")
    views = []
    for done, one in enumerate(trajectories):
        advance(done, len(trajectories))
        views.append(episode_view(one, compare_with_gold(one) if world else skipped, language))
    advance(len(trajectories), len(trajectories))
    content = {
        "title": title,
        "trajectories": trajectories,
        "unreadable": unreadable,
        "domains": sorted({one.domain for one in trajectories} - {""}),
        "users": sorted({one.user_model for one in trajectories} - {""}),
        "blames": sorted({one.blame for one in trajectories} - {""}),
        "success": SUCCESS,
    }
    page = render_page("tau2_slime.inspector", "page", pack(views, language), content).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return len(page)
