"""A metric of one's own: how an agent divides its work over turns.

    tau2:
      metrics: [custom_metric.turn_shape]       # this folder is on PYTHONPATH

A metric is a function of a finished episode. Its numbers are in the sample's ``metadata["tau2"]["telemetry"]`` as
``custom/parallel_calls`` and ``custom/words_per_message``, and their means in the training and evaluation metrics as
``rollout/tau2/custom/...`` and ``eval/<dataset>/tau2/custom/...``. `tau2_slime.episode.own_functions` has the contract.
"""

from __future__ import annotations

from statistics import fmean

from tau2_slime.episode.result import InteractionResult


def turn_shape(result: InteractionResult) -> dict[str, float]:
    """``parallel_calls``: share of the turns with tool calls that have more than one. ``words_per_message``: a mean.

    A number that an episode does not have, such as the first in an episode without tool calls, is left out of its mapping,
    and so of the mean.
    """
    turns = [message for message in result.messages if message.role == "assistant"]
    calls = [len(message.tool_calls) for message in turns if message.tool_calls]
    texts = [message.content for message in turns if message.content]
    numbers = {}
    if calls:
        numbers["parallel_calls"] = fmean(count > 1 for count in calls)
    if texts:
        numbers["words_per_message"] = fmean(len(text.split()) for text in texts)
    return numbers
