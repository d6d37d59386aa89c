"""One HTML file with every episode in it, each packed by itself and unpacked when somebody opens it.

The file is self-contained: it loads nothing, and its content security policy forbids everything but the script and the style
that are in it, by their hashes. Data is compressed JSON in base64, so nothing that a model wrote is ever part of the markup.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.blocks import blocks_of
from tau2_slime.inspector.check import check
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.inspector.words import vocabulary
from tau2_slime.inspector.world_diff import Difference, world_diff
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
) -> int:
    """Write the page and return its size in bytes. ``world``: replay tool calls in τ² for the database's changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _parts(trajectories, title, language, world, unreadable))
    return path.stat().st_size


def _parts(
    trajectories: Sequence[Trajectory],
    title: str,
    language: CheckpointProfile | None,
    world: bool,
    unreadable: Sequence[str],
) -> Iterator[str]:
    style, script = _static("page.css"), _static("page.js")
    allowed = ("default-src 'none'", f"script-src '{_hash(script)}'", f"style-src '{_hash(style)}'")
    policy = "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)} · episodes</title>\n<style>{style}</style></head><body>\n"
        '<noscript>This page needs JavaScript.</noscript><div id="app"></div>\n'
    )
    packer = _Packer(language)
    rows = []
    for number, one in enumerate(trajectories):
        rows.append(_row(one))
        difference = world_diff(one) if world else Difference(note="not compared (--no-world)")
        yield _block(f"e{number}", packer.episode(one, difference))
    for number, prompt in enumerate(packer.prompts):
        yield _block(f"p{number}", prompt)
    yield _block("words", packer.words())
    yield _block("index", {"title": title, "rows": rows, "unreadable": list(unreadable)[:100]})
    yield f"<script>{script}</script></body></html>\n"


def _row(one: Trajectory) -> dict[str, Any]:
    return {
        "name": one.name,
        "domain": one.domain,
        "task": one.task_id,
        "same": one.attempt_of,
        "user": one.user_model,
        "reward": None if one.excluded else one.reward,
        "blame": one.blame,
        "ended": one.termination,
        "errors": one.tool_errors(),
        "sampled": sum(piece.stop - piece.start for piece in one.pieces() if piece.kind == "sampled"),
        "messages": len(one.messages),
    }


_FACTS = (
    *("where", "domain", "task_split", "task_id", "agent_type", "user_model", "status", "termination", "blame"),
    *("excluded", "reward", "detail", "group"),
)


class _Packer:
    """Episodes as the page reads them. A prompt's beginning is most of an episode's ids and the same in many: once."""

    def __init__(self, language: CheckpointProfile | None) -> None:
        self.language = language
        self.prompts: list[list[int]] = []
        self._prompt_of: dict[tuple[str, str], int] = {}
        self._ids: set[int] = set()

    def episode(self, one: Trajectory, difference: Difference) -> dict[str, Any]:
        ledger = one.ledger or {}
        tokens = list(one.tokens)
        self._ids.update(token for token in tokens if type(token) is int)
        base = self._prompt_of.setdefault((one.domain, one.agent_type), len(self.prompts))
        if base == len(self.prompts):
            self.prompts.append(tokens[: one.prompt_length])
        shared = _common(self.prompts[base], tokens)
        return {
            "facts": {name: getattr(one, name) for name in _FACTS},
            "blocks": [asdict(block) for block in blocks_of(one, self.language)],
            "prompt": {"block": base, "shared": shared},
            "tokens": tokens[shared:],
            "start": one.prompt_length,
            "mask": list(ledger.get("loss_mask") or []),
            "logProbs": [_rounded(value) for value in ledger.get("log_probs") or []],
            "reward": {k: v for k, v in one.reward_info.items() if v not in (None, [], {})},
            "stats": {k: v for k, v in one.stats.items() if v not in (None, 0, 0.0, {}, [])},
            "telemetry": one.telemetry,
            "database": {"note": difference.note, "changes": [asdict(change) for change in difference.changes]},
            "violations": [str(violation) for violation in check(one)[:20]],
        }

    def words(self) -> dict[int, str]:
        return vocabulary(self._ids, self.language) if self.language is not None else {}


def _rounded(value: Any) -> float | None:
    return round(float(value), 4) if isinstance(value, (int, float)) and value == value and abs(value) < 1e9 else None


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _block(name: str, content: Any) -> str:
    packed = gzip.compress(json.dumps(content, ensure_ascii=False, default=str).encode("utf-8", "replace"), 6, mtime=0)
    return f'<script type="text/plain" id="{name}">{base64.b64encode(packed).decode()}</script>\n'


def _static(name: str) -> str:
    return resources.files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
