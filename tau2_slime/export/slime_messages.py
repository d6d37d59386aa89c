"""Rows for slime's own ``sft_rollout``, each proved: slime renders and masks them, and the ledger has the same tokens.

slime's SFT knows messages, not tokens. It renders them with the checkpoint's template and trains every turn of the
assistant. So a row leaves only if that gives the tokens that the policy was shown and sampled, and trains those it sampled.
One difference is allowed: slime also trains the line break that the template writes after each turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.trajectory import Trajectory, common_length

if TYPE_CHECKING:
    from tau2_slime.export.conversation import Chat
    from tau2_slime.slime_adapter.types import MaskGenerator
    from tau2_slime.tokens.template.chat_delta import ChatDelta

MASK_TYPES = ("qwen3", "qwen3_5", "qwen")
"""Values of slime's ``--loss-mask-type`` that render whole conversations, in the order in which they are tried."""


@dataclass(frozen=True)
class Proof:
    """What came of rendering one row with slime's code."""

    difference: str
    """Where and how slime's tokens or mask differ from the ledger; empty if they agree."""
    line_breaks: int = 0
    """Tokens after a turn's end that slime trains and that nobody sampled."""


def slime_row(trajectory: Trajectory, chat: Chat) -> dict[str, Any]:
    """The row for ``--input-key messages --tool-key tools``; slime trains no turn with ``step_loss_mask: 0``."""
    messages = [
        {**one.content, "step_loss_mask": 0} if one.content["role"] == "assistant" and not one.sampled else one.content
        for one in chat.messages
    ]
    metadata = {
        "domain": trajectory.domain,
        "task_split": trajectory.task_split,
        "task_id": trajectory.task_id,
        "reward": trajectory.reward,
    }
    return {"messages": messages, "tools": chat.tools, "metadata": metadata}


def prove(row: dict[str, Any], trajectory: Trajectory, generator: MaskGenerator, delta: ChatDelta) -> Proof:
    """Compare what slime makes of ``row`` with the trajectory's ledger, token by token."""
    ledger = trajectory.ledger
    if ledger is None or not any(ledger["loss_mask"]):
        return Proof("the file keeps no tokens to compare with")
    try:
        ids, mask = generator.get_loss_mask(row["messages"], tools=row["tools"])
    except Exception as error:  # slime's code and the template: whatever they refuse, the row cannot be used
        return Proof(f"slime cannot render it: {type(error).__name__}: {error}")
    tokens = list(ledger["tokens"])
    trained = [0] * (len(tokens) - len(ledger["loss_mask"])) + list(ledger["loss_mask"])
    stop = len(trained) - trained[::-1].index(1)
    decode = delta.template.decode
    at = common_length(ids[:stop], tokens[:stop])
    if at < stop:
        kind = next((span.kind for span in trajectory.spans() if span.start <= at < span.stop), "prompt")
        here, there = _around(ids, at, decode), _around(tokens, at, decode)
        return Proof(f"token {at} ({_PLACES[kind]}): slime renders {here}, the policy had {there}")
    line_breaks = 0
    for i, (ours, theirs) in enumerate(zip(trained, mask[:stop], strict=False)):
        if ours == theirs:
            continue
        if ours:
            return Proof(f"token {i}: slime would not train {decode([tokens[i]])!r}, which the policy sampled")
        if not (trained[i - 1] and tokens[i - 1] in delta.stop_ids and decode([tokens[i]]).isspace()):
            return Proof(f"token {i}: slime would train {decode([tokens[i]])!r}, which the policy did not sample")
        line_breaks += 1
    rest = decode(ids[stop:])
    if rest.strip():
        return Proof(f"token {stop}: slime would go on with {rest[:40]!r}, which the policy did not sample")
    return Proof("", line_breaks + sum(mask[stop:]))


_PLACES = {"prompt": "in the first prompt", "sampled": "in the policy's own words", "context": "between two turns"}


def _around(ids: Sequence[int], at: int, decode: Callable[[list[int]], str]) -> str:
    return repr(decode(list(ids[max(0, at - 4) : at + 8])))
