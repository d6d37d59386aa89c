"""A reward part of one's own: partial credit for asking the user before something is changed.

    tau2:
      reward_shaping:
        partial_credit: 0.3
        parts: {custom_reward.asked_before_writing: 1.0}       # this folder is on PYTHONPATH

The part joins τ²'s own checks in a weighted mean, and a failed episode earns ``partial_credit`` times that mean. A success
earns 1 with or without it. The part's mean is logged as ``reward_part/custom_reward.asked_before_writing``.

Like every part of a shaped reward it pays for something that is not the task: a policy can learn to ask needlessly.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from tau2_slime.episode.result import InteractionResult

WRITES = ("book_", "cancel_", "create_", "exchange_", "modify_", "return_", "send_", "update_")
"""How the names of tools begin that change something."""


def asked_before_writing(result: InteractionResult) -> float | None:
    """Share, 0.0 to 1.0, of the turns with a writing call that answer a message of the user; None without such a turn.

    A turn that follows a tool's result was not confirmed: the agent went on by itself.
    """
    confirmed = [
        before.role == "user"
        for before, message in pairwise(result.messages)
        if message.role == "assistant" and any(call.name.startswith(WRITES) for call in message.tool_calls or ())
    ]
    return fmean(confirmed) if confirmed else None
