"""``card.json``: what an export holds, where it came from, and for which tokenizer its tokens are."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime import __version__
from tau2_slime.errors import ConfigError
from tau2_slime.export.episodes import Episode, Filters, Run, counts

if TYPE_CHECKING:
    from tau2_slime.tokens.template.chat_template import ChatTemplate

CARD = "card.json"


def card(
    format: str, runs: Sequence[Run], episodes: Sequence[Episode], filters: Filters, written: Mapping[str, object]
) -> dict[str, Any]:
    """The card of an export of the ``episodes`` that were not left out; ``written``: what only this format knows."""
    from tau2_slime.world import tau2_compat

    leaving = [one for one in episodes if not one.left_out]
    lengths = sorted(len(one.trajectory.tokens) for one in leaving)
    trained = sum(sum((one.trajectory.ledger or {}).get("loss_mask") or []) for one in leaving)
    return {
        "format": format,
        "episodes": {
            "read": len(episodes),
            "written": len(leaving),
            "unreadable": sum(len(run.found.unreadable) for run in runs),
        },
        "left_out": counts(episodes),
        "filters": {
            **asdict(filters),
            **{name: sorted(getattr(filters, name)) for name in ("keep", "only", "without")},
            "held_out": [str(path) for path in filters.held_out],
        },
        "tokens": {"all": sum(lengths), "trained": trained, "longest": lengths[-1] if lengths else 0},
        "tasks": dict(sorted(Counter(f"{t.domain}/{t.task_split}/{t.task_id}" for t in _told(leaving)).items())),
        "runs": [
            {"path": str(run.path), "fingerprint": run.fingerprint, "checkpoint": run.found.checkpoint} for run in runs
        ],
        "made_by": {"tau2_slime": __version__, "tau2": tau2_compat.version()},
        **written,
    }


def _told(episodes: Sequence[Episode]) -> list[Any]:
    return [one.trajectory for one in episodes]


def checkpoint_record(name: str, template: ChatTemplate) -> dict[str, str]:
    """The checkpoint whose tokens an export holds: its name, and hashes by which another folder of it is known."""
    vocabulary = json.dumps(sorted(template.tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return {
        "name": name,
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest()[:16],
        "chat_template": hashlib.sha256(template.template_source.encode()).hexdigest()[:16],
    }


def hashes(folder: Path) -> dict[str, str]:
    """File of ``folder`` -> SHA-256, without the card itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CARD, ".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_card(folder: Path) -> dict[str, Any]:
    """The card in ``folder``.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / CARD
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {CARD}: write it with tau2-slime export --format slime-sft") from None
    except (OSError, ValueError, AssertionError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}): export again") from None
    return found
