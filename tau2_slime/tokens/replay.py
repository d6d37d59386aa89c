"""What a trainer replays beside the tokens: the kept set of every sampled token, and the experts of every token.

*Top-p replay*: a server that samples from a nucleus says, for each token, which ids the nucleus held; the trainer then
normalises over the same ids. *Routed-expert replay* (R3): a mixture-of-experts server says which experts each token was
sent to; the trainer sends it to the same ones. Both come with each generate call and must stay in step with the tokens,
so a `TokenLedger` owns its `Replay` and nobody else changes it. `replay_reply` reads them out of a server's answer.

In the shapes below, T is the length of a trajectory and P that of its prompt, in tokens.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import TokenTruthError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class ExpertShape:
    """How many numbers a token's routing has."""

    layers: int
    """All layers of the model, the dense ones included."""
    topk: int
    """Experts per token and layer."""
    experts: int | None = None
    """Experts to choose from, if known."""

    @property
    def row(self) -> int:
        """Expert numbers per token."""
        return self.layers * self.topk


@dataclass(frozen=True)
class ReplaySpec:
    """What a training run replays; by default nothing."""

    top_p: bool = False
    """The kept set of every sampled token."""
    experts: ExpertShape | None = None
    """The experts of every token, in this shape."""

    @property
    def wanted(self) -> bool:
        """True unless there is nothing to replay."""
        return self.top_p or self.experts is not None


NOTHING = ReplaySpec()


@dataclass(frozen=True)
class ReplayRequest:
    """What one generate call asks for."""

    spec: ReplaySpec
    start: int = 0
    """Rows of experts that are known already; a server that can leave them out does."""

    def payload(self) -> dict[str, bool | int]:
        """Top-level fields of the request. (Kept sets are asked for in slime's own ``sampling_params.custom_params``.)"""
        if self.spec.experts is None:
            return {}
        return {"return_routed_experts": True, "routed_experts_start_len": self.start}


@dataclass(frozen=True)
class CallReplay:
    """What came back with one generate call that sampled n tokens and made the trajectory T tokens long."""

    kept_ids: array[int] | None = None
    """Token ids of the nuclei of the sampled tokens, one nucleus after the other."""
    kept_offsets: Sequence[int] | None = None
    """Where each nucleus begins in `kept_ids`, and one past the last; shape (n + 1,)."""
    experts: array[int] | None = None
    """Rows of ``layers * topk`` expert numbers, for the positions from `start` to T - 2, flattened."""
    start: int = 0
    """First position that `experts` covers."""


class Replay:
    """The replay data of one trajectory.

    A token of the response that was not sampled has an empty kept set: the trainer leaves its row unrestricted. Row ``i``
    of the experts says where token ``i`` was sent when it was *read*; the last sampled token has not been read yet.
    """

    def __init__(self, spec: ReplaySpec) -> None:
        self.spec = spec
        self.kept_ids: array[int] = array("i")
        """Kept token ids of the response, one set after the other."""
        self.kept_offsets: list[int] = [0]
        """Where each set begins in `kept_ids`, and one past the last; shape (T - P + 1,)."""
        self.experts: array[int] = array("i")
        """`rows` rows of expert numbers, flattened."""
        self._ask_again = False

    @property
    def request(self) -> ReplayRequest:
        """What the next generate call has to ask for."""
        return ReplayRequest(self.spec, 0 if self._ask_again else self.rows)

    @property
    def rows(self) -> int:
        """Positions whose experts are known."""
        return len(self.experts) // self.spec.experts.row if self.spec.experts is not None else 0

    # --- in step with the ledger, which calls these

    def append_sampled(self, part: CallReplay | None, count: int, total: int) -> None:
        """``count`` tokens were sampled and make the trajectory ``total`` tokens long.

        Raises:
            ValueError, TokenTruthError: ``part`` does not belong to them. Nothing is changed then.
        """
        if not count:
            return
        if part is None:
            raise ValueError("sampled tokens without the replay data that the training run needs")
        if self.spec.top_p:
            if part.kept_ids is None or part.kept_offsets is None:
                raise ValueError("sampled tokens without their kept sets")
            check_offsets(part.kept_offsets, count, len(part.kept_ids))
        if self.spec.experts is not None:
            row = self.spec.experts.row
            if part.experts is None or len(part.experts) != (total - 1 - part.start) * row or part.start > self.rows:
                raise ValueError(f"{total} tokens do not follow from {self.rows} rows of experts and what was appended")
            del self.experts[part.start * row :]
            self.experts.extend(part.experts)
            self._ask_again = False
        if part.kept_ids is not None and part.kept_offsets is not None:
            base = len(self.kept_ids)
            self.kept_ids.extend(part.kept_ids)
            self.kept_offsets.extend(base + offset for offset in part.kept_offsets[1:])

    def append_context(self, count: int) -> None:
        """``count`` tokens of context were appended."""
        if self.spec.top_p:
            self.kept_offsets.extend([self.kept_offsets[-1]] * count)

    def pop_last(self, total: int) -> None:
        """The last token was dropped, ``total`` tokens are left."""
        if self.spec.top_p:
            self.kept_offsets.pop()
            del self.kept_ids[self.kept_offsets[-1] :]
        if self.spec.experts is not None:
            del self.experts[total * self.spec.experts.row :]

    def check(self, response: int, total: int, last_sampled: int | None) -> None:
        """Check that this fits ``total`` tokens, ``response`` of them after the prompt.

        ``last_sampled``: position of the last sampled token, if there is one.

        Raises:
            ValueError, TokenTruthError: it does not.
        """
        if self.spec.top_p:
            check_offsets(self.kept_offsets, response, len(self.kept_ids))
        if self.spec.experts is not None:
            if len(self.experts) % self.spec.experts.row or self.rows > max(total, 0):
                raise ValueError(f"{len(self.experts)} expert numbers do not fit {total} tokens")
            if last_sampled is not None and self.rows < last_sampled:
                raise ValueError(f"experts are known for {self.rows} positions, token {last_sampled} was sampled")

    # --- out and in

    def kept_sets(self, response: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """``(ids, offsets)`` for ``response`` tokens, offsets of shape (response + 1,).

        Tokens beyond the known ones get empty sets.
        """
        import numpy as np

        offsets = self.kept_offsets + [self.kept_offsets[-1]] * (response + 1 - len(self.kept_offsets))
        return np.array(self.kept_ids, dtype=np.int32), np.array(offsets, dtype=np.int32)

    def expert_rows(self, total: int) -> npt.NDArray[np.int32]:
        """Expert numbers of shape ``(total - 1, layers, topk)``.

        Positions that no call has read (a tail of context, a placeholder) get experts in turn, all different within a
        token, as slime pads its own batches: no token that counts can see them, and the trainer refuses all zeros.
        """
        import numpy as np

        shape = self.spec.experts
        assert shape is not None
        rows = np.array(self.experts, dtype=np.int32).reshape(-1, shape.layers, shape.topk)[: total - 1]
        missing = (total - 1 - len(rows), shape.layers, shape.topk)
        filler = np.arange(missing[0] * shape.row, dtype=np.int32) % max(shape.experts or 0, shape.topk)
        return np.concatenate([rows, filler.reshape(missing)])

    @classmethod
    def restored(
        cls, spec: ReplaySpec, *, kept_ids: object = None, kept_offsets: object = None, experts: object = None
    ) -> Replay:
        """The replay data of a trajectory that comes back from slime's buffer, from the fields that were filled then.

        The fields are lists, numpy arrays or CPU tensors of integers, in the shapes of `kept_sets` and `expert_rows`.
        Experts are taken as they are and asked for once more, in full, by the next call: rows that were only filled in
        cannot be told from real ones.

        Raises:
            ValueError: a field that ``spec`` wants is missing or broken.
        """
        replay = cls(spec)
        if spec.top_p:
            if kept_ids is None or kept_offsets is None:
                raise ValueError("the saved trajectory has no kept sets")
            replay.kept_ids, replay.kept_offsets = _int32_array(kept_ids), list(_int32_array(kept_offsets))
            try:
                check_offsets(replay.kept_offsets, len(replay.kept_offsets) - 1, len(replay.kept_ids))
            except TokenTruthError as error:
                raise ValueError(str(error)) from error
        if spec.experts is not None:
            if experts is None:
                raise ValueError("the saved trajectory has no routed experts")
            replay.experts, replay._ask_again = _int32_array(experts), True
        return replay

    def to_dict(self) -> dict[str, Any]:
        """A snapshot of JSON values."""
        return {
            "spec": asdict(self.spec),
            "kept_ids": list(self.kept_ids),
            "kept_offsets": list(self.kept_offsets),
            "experts": base64.b64encode(_little_endian(self.experts).tobytes()).decode(),
            "ask_again": self._ask_again,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Replay:
        """Restore a snapshot; raises ValueError, TypeError or KeyError when it is not one."""
        shape = data["spec"]["experts"]
        replay = cls(ReplaySpec(bool(data["spec"]["top_p"]), None if shape is None else ExpertShape(**shape)))
        replay.kept_ids = array("i", data["kept_ids"])
        replay.kept_offsets = [int(offset) for offset in data["kept_offsets"]]
        replay.experts, replay._ask_again = decode_int32(data["experts"]), bool(data["ask_again"])
        return replay


def check_offsets(offsets: Sequence[int], tokens: int, ids: int) -> None:
    """Raise TokenTruthError unless ``offsets``, shape (tokens + 1,), cut ``ids`` kept ids into one set per token."""
    if len(offsets) != tokens + 1 or offsets[0] != 0 or offsets[-1] != ids or any(a > b for a, b in pairwise(offsets)):
        raise TokenTruthError(f"{len(offsets)} offsets to {ids} kept ids do not belong to {tokens} tokens")


def decode_int32(text: str) -> array[int]:
    """Base64 of little-endian int32; raises ValueError."""
    numbers = array("i")
    try:
        numbers.frombytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    return _little_endian(numbers)


def _little_endian(numbers: array[int]) -> array[int]:
    """Between this machine's byte order and little endian."""
    if sys.byteorder == "little":
        return numbers
    swapped = array("i", numbers)
    swapped.byteswap()
    return swapped


def _int32_array(values: object) -> array[int]:
    """A list, numpy array or CPU tensor of any shape: which of them a sample holds depends on slime's version."""
    import numpy as np

    return array("i", np.asarray(values, dtype=np.int32).tobytes())
