"""A short hash of a trajectory's tokens and log-probabilities, to find out later whether they were changed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

DIGEST_FORMAT = "2:"
"""What a `trajectory_digest` begins with. Those of older samples are bare digits (`inspector.check`)."""


def trajectory_digest(tokens: Sequence[int], log_probs: Sequence[float]) -> str:
    """A hash of the token ids, as integers of 64 bits, and the log-probabilities, as floats of 64 bits.

    Two trajectories differ in it exactly if they differ in the value of a number; how a number is stored makes no
    difference. The loss mask is left out, because slime may take old tokens out of the loss.

    >>> trajectory_digest([1, 2, 3], [-1, -0.5]) == trajectory_digest((1, 2, 3), (-1.0, -0.5))
    True

    Raises:
        ValueError: something is not such a number.
    """
    try:
        ids, values = struct.pack(f"<{len(tokens)}q", *tokens), struct.pack(f"<{len(log_probs)}d", *log_probs)
    except struct.error as error:
        raise ValueError(f"not token ids and log-probabilities: {error}") from error
    digest = hashlib.sha256(b"%d " % len(tokens))
    digest.update(ids)
    digest.update(values)
    return f"{DIGEST_FORMAT}{digest.hexdigest()[:16]}"
