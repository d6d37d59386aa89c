"""Episodes as text that a page carries: gzipped JSON in base64, in chunks that are unpacked when a reader opens one."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.inspector.episode_view import View
from tau2_slime.inspector.tokenizers import token_texts
from tau2_slime.inspector.trajectory import common_length

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile

CHUNK = 400_000
"""Characters of JSON that are unpacked together; an episode that is longer is a chunk of its own."""


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
