"""Pages that load nothing from elsewhere and run no script but their own, and one episode as they show it.

The viewer (`view`) and the evaluation's report (`evaluation.report.html`) build their pages here. Each brings a template, a
style and scripts; how a conversation looks is in `assets/conversation.css` and `assets/conversation.js`.

What a model, a user or a tool wrote gets into a page in one of three ways. A template escapes it. Or it is part of the
packed episodes: gzipped JSON in base64, which the script unpacks when a reader opens one. Or a server sends it as JSON. The
script puts it into the page as text. The page's content security policy would not let anything else run.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.conversation import conversation_of
from tau2_slime.inspector.database_diff import DatabaseDiff
from tau2_slime.inspector.tokenizers import token_texts
from tau2_slime.inspector.trajectory import Trajectory, common_length

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile

_PACKAGE = "tau2_slime.inspector"
CHUNK = 400_000
"""Characters of JSON that are unpacked together; an episode that is longer is a chunk of its own."""
VIOLATIONS = 20
"""Violations of token truth that are shown of one episode."""
View = dict[str, Any]
"""One episode as `conversation.js` reads it; `episode_view` says what is in it."""


def episode_view(trajectory: Trajectory, database: DatabaseDiff, language: CheckpointProfile | None = None) -> View:
    """What the viewer shows of ``trajectory``.

    ``title``, ``reward``, ``facts`` (pairs of name and value), ``warnings`` (lines), ``entries`` (`conversation.Entry`),
    ``reward_info``, ``database`` (`DatabaseDiff`), ``telemetry``, ``stats`` and ``tokens``. The last is None without tokens;
    else ``ids`` (T,), of which those from ``start`` on are the response, and of the response (R,) ``mask`` and ``log_probs``
    (natural logarithms, four digits).
    """
    ledger = trajectory.ledger
    facts = {
        "ended": trajectory.termination,
        "blame": trajectory.blame,
        "user": trajectory.user_model,
        "agent": trajectory.agent_type,
        "split": trajectory.task_split,
        "group": trajectory.group,
        "read from": trajectory.where,
    }
    tokens = {
        "prompt": f"{trajectory.domain} {trajectory.agent_type}",  # prompts of one name begin alike, and are stored once
        "ids": list(trajectory.tokens),
        "start": trajectory.prompt_length,
        "mask": list((ledger or {}).get("loss_mask") or []),
        "log_probs": [_rounded(value) for value in (ledger or {}).get("log_probs") or []],
    }
    return {
        "title": f"{trajectory.name} · {trajectory.task_label}",
        "reward": trajectory.counted_reward,
        "facts": [(name, value) for name, value in facts.items() if value],
        "warnings": [
            *([trajectory.detail] if trajectory.detail else []),
            *(str(violation) for violation in check_trajectory(trajectory)[:VIOLATIONS]),
        ],
        "entries": [
            {**vars(entry), "calls": [*map(vars, entry.calls)], "spans": [*map(vars, entry.spans)]}
            for entry in conversation_of(trajectory, language)
        ],
        "tokens": tokens if ledger is not None else None,
        "reward_info": {k: v for k, v in trajectory.reward_info.items() if v not in (None, [], {})},
        "database": asdict(database),
        "telemetry": trajectory.telemetry,
        "stats": {k: v for k, v in trajectory.stats.items() if v not in (None, 0, 0.0, {}, [])},
    }


def alone(view: View, language: CheckpointProfile | None = None) -> View:
    """``view`` with all that its reader needs: what `pack` shares between episodes is in ``vocabulary``."""
    tokens = view["tokens"]
    if tokens is None:
        return view
    known = {token for token in tokens["ids"] if type(token) is int}
    texts = token_texts(known, language) if language is not None else {}
    return {**view, "tokens": {**tokens, "shared": 0}, "vocabulary": {"prompts": {}, "texts": texts}}


def _rounded(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, (int, float)) and abs(value) < 1e300 else None


# ---- packed episodes ---------------------------------------------------------------------------------------------------


def pack(views: Sequence[View], language: CheckpointProfile | None = None) -> dict[str, str]:
    """Element id -> what stands in it: gzipped JSON in base64.

    ``episodes-N`` is a chunk, a list of episodes of which the first has the number N: a page with thousands of them unpacks
    only what its reader opens. ``vocabulary`` has the text of each token, and the prompts that episodes share.
    """
    blocks: dict[str, str] = {}
    prompts: dict[str, list[int]] = {}
    ids: set[int] = set()
    chunk: list[str] = []
    for number, view in enumerate(views, 1):
        tokens = view["tokens"]
        if tokens is not None:
            ids.update(token for token in tokens["ids"] if type(token) is int)
            prompt = prompts.setdefault(tokens["prompt"], tokens["ids"][: tokens["start"]])
            shared = common_length(prompt, tokens["ids"])
            tokens = {**tokens, "shared": shared, "ids": tokens["ids"][shared:]}
        chunk.append(as_json({**view, "tokens": tokens}))
        if sum(map(len, chunk)) >= CHUNK or number == len(views):
            blocks[f"episodes-{number - len(chunk)}"] = packed(f"[{','.join(chunk)}]")
            chunk = []
    texts = token_texts(ids, language) if language is not None else {}
    return {**blocks, "vocabulary": packed(as_json({"prompts": prompts, "texts": texts}))}


def packed(text: str) -> str:
    """``text`` as `inflate` of the script reads it."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()


def as_json(content: object) -> str:
    """JSON that a browser can read: numbers that are not finite become text."""
    try:
        return json.dumps(content, ensure_ascii=False, default=str, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return as_json(json.loads(json.dumps(content, default=str), parse_constant=str))


# ---- pages -------------------------------------------------------------------------------------------------------------


def render_page(
    package: str,
    name: str,
    packed: Mapping[str, str],
    content: Mapping[str, object],
    *,
    scripts: Sequence[str] = (),
    first: Mapping[str, str] | None = None,
    policy: str = "",
) -> str:
    """A whole page: ``assets/<name>.html.j2``, ``.css`` and ``.js`` of ``package``, around the viewer's own.

    ``packed``: what `pack` returns. ``content``: the template's variables. ``scripts``: further scripts of the package,
    before its own. ``first``: blocks that the script needs at once; it runs before those of ``packed`` are there.
    ``policy``: what the content security policy allows beyond the page itself.
    """
    style = _asset(_PACKAGE, "conversation.css") + _asset(package, f"{name}.css")
    script = _asset(_PACKAGE, "conversation.js") + "".join(_asset(package, f"{one}.js") for one in (*scripts, name))
    page = _environment(package).get_template(f"{name}.html.j2")
    text = page.render(
        content,
        packed=packed,
        first=first or {},
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        policy=policy,
    )
    # A model can write half of a surrogate pair, which is not text in any encoding.
    return text.encode("utf-8", "replace").decode()


@cache
def _environment(package: str) -> Environment:
    loader = ChoiceLoader([PackageLoader(package, "assets"), PackageLoader(_PACKAGE, "assets")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _asset(package: str, name: str) -> str:
    return resources.files(package).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
