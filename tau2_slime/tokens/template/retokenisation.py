"""How far a trajectory is from what a client would have sent that tokenises the conversation again: a metric.

It answers two questions after the episode, for a sampled share of the episodes. Would tokenising the model's own text again
give other ids (`retokenised_turns`, `retokenised_tokens`)? And is everything that was appended between the turns exactly
what the chat template writes when it renders the real history (`environment_mismatches`, which must be 0)?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tau2_slime.tokens.template.chat_template import TemplateError

if TYPE_CHECKING:
    from tau2_slime.tokens.ledger import TokenLedger
    from tau2_slime.tokens.template.chat_delta import ChatDelta


def measure(
    delta: ChatDelta,
    ledger: TokenLedger,
    chat: list[dict[str, Any]],
    joins: list[tuple[int, int]],
    tools: list[dict[str, Any]],
) -> dict[str, int]:
    """Count for one trajectory: turns, turns and tokens that would change, and mismatches of what was appended.

    Args:
        delta: the chat template.
        ledger: the trajectory.
        chat: the conversation that the ledger stands for.
        joins: for each context segment, the range of messages of ``chat`` that it stands for.
        tools: what the first prompt shows.
    """
    template = delta.template
    counts = {"turns": 0, "retokenised_turns": 0, "retokenised_tokens": 0, "environment_mismatches": 0}
    for segment in ledger.segments:
        if segment.kind != "sampled":
            continue
        ids = ledger.tokens[segment.start : segment.stop]
        again = template.encode(template.decode(ids))
        counts["turns"] += 1
        if again != ids:
            counts["retokenised_turns"] += 1
            counts["retokenised_tokens"] += len(ids) - _common_prefix(ids, again)
    context = [segment for segment in ledger.segments if segment.kind == "context"]
    for segment, (start, stop) in zip(context, joins, strict=False):
        try:
            expected = delta.between(chat[: start - 1], chat[start - 1], chat[start:stop], tools, real=True)
        except TemplateError:  # the template refuses the real history; the dummy base hid that
            counts["environment_mismatches"] += 1
            continue
        ids = ledger.tokens[segment.start : segment.stop]
        # The sampled stop token is usually the closer that the delta begins with.
        counts["environment_mismatches"] += ids not in (expected.ids, expected.ids[1:])
    return counts


def _common_prefix(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
