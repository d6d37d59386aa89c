"""What one trajectory is made of: token ids, and for each id after the prompt whether it was sampled and how likely.

The ledger is append-only. The one exception is `pop_stop`, the junction's "replace" rule: the server stopped on a stop
token that is not the one the chat template writes in history, so the last sampled token goes, with its mask and its
log-probability, before the template's own closer is appended as context.

What else a training run replays for each token (`replay`) is kept in step here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tau2_slime.errors import TokenTruthError
from tau2_slime.tokens.replay import CallReplay, Replay, ReplaySpec


class LedgerError(ValueError):
    """An operation or a state that would make a training token untrue."""


@dataclass
class Segment:
    """A run of tokens that came from one place."""

    kind: Literal["sampled", "context"]
    """`sampled`: verbatim from the server, mask 1. `context`: written by the chat template, mask 0."""
    start: int
    """First position, counted from the start of the prompt."""
    stop: int
    """One past the last position."""
    weight_version: str | None = None
    """The weights that sampled it, as the server named them; None for context or when the server did not say."""
    masked: bool = False
    """Sampled, but taken out of the loss by slime (``--mask-offpolicy-in-partial-rollout``)."""


class TokenLedger:
    """Tokens, loss mask and log-probabilities of one trajectory.

    `tokens` is prompt + response; `loss_mask` and `log_probs` cover the response only, so both have length
    `len(tokens) - prompt_length`. Mask 1 stands exactly on sampled tokens, but for those of segments that were masked as
    off-policy between two rollouts; log-probability is 0.0 on context.
    """

    def __init__(self, prompt_ids: Sequence[int], replay: ReplaySpec | None = None) -> None:
        """``replay``: what the training run wants beside the tokens; then every sampled run must bring it."""
        self.tokens: list[int] = [int(token) for token in prompt_ids]
        self.prompt_length: int = len(self.tokens)
        self.loss_mask: list[int] = []
        self.log_probs: list[float] = []
        self.weight_versions: list[str] = []
        """One entry for each generate call that named its weights, in order."""
        self.segments: list[Segment] = []
        """What was appended after the prompt, in order; together they cover the response without a gap."""
        self.replay: Replay | None = Replay(replay) if replay is not None and replay.wanted else None

    # --- appending

    def append_sampled(
        self,
        ids: Sequence[int],
        log_probs: Sequence[float],
        weight_version: str | None = None,
        replay: CallReplay | None = None,
    ) -> None:
        """Append what one generate call sampled, the stop token included.

        Raises LedgerError, and appends nothing, when ids and log-probs differ in length, a log-prob is not finite, or
        ``replay`` is not what this trajectory needs for these tokens.
        """
        if len(ids) != len(log_probs):
            raise LedgerError(f"{len(ids)} sampled ids but {len(log_probs)} log-probabilities")
        values = [float(value) for value in log_probs]
        bad = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
        if bad is not None:
            raise LedgerError(f"log-probability {values[bad]} of sampled token {bad} is not a finite number")
        if self.replay is not None:
            try:
                self.replay.append_sampled(replay, len(ids), len(self.tokens) + len(ids))
            except (ValueError, TokenTruthError) as error:
                raise LedgerError(str(error)) from error
        self._append("sampled", [int(token) for token in ids], 1, values, weight_version)
        if weight_version is not None:
            self.weight_versions.append(str(weight_version))

    def append_context(self, ids: Sequence[int]) -> None:
        """Append what the chat template wrote: mask 0, log-probability 0.0."""
        if self.replay is not None:
            self.replay.append_context(len(ids))
        self._append("context", [int(token) for token in ids], 0, [0.0] * len(ids), None)

    def pop_stop(self) -> int:
        """Drop the last token and return its id; raises LedgerError unless that token was sampled."""
        if not self.last_is_sampled:
            raise LedgerError("the last token was not sampled: only a sampled stop token may be replaced")
        segment = self.segments[-1]
        segment.stop -= 1
        if segment.stop == segment.start:
            self.segments.pop()
        self.loss_mask.pop()
        self.log_probs.pop()
        if self.replay is not None:
            self.replay.pop_last(len(self.tokens) - 1)
        return self.tokens.pop()

    def _append(
        self,
        kind: Literal["sampled", "context"],
        ids: list[int],
        mask: int,
        log_probs: list[float],
        weight_version: str | None,
    ) -> None:
        if not ids:
            return
        start = len(self.tokens)
        self.tokens.extend(ids)
        self.loss_mask.extend([mask] * len(ids))
        self.log_probs.extend(log_probs)
        self.segments.append(Segment(kind, start, len(self.tokens), weight_version))

    # --- looking

    @property
    def response_length(self) -> int:
        return len(self.tokens) - self.prompt_length

    @property
    def sampled_count(self) -> int:
        return sum(segment.stop - segment.start for segment in self.segments if segment.kind == "sampled")

    @property
    def context_count(self) -> int:
        """Context tokens after the prompt."""
        return self.response_length - self.sampled_count

    @property
    def last_is_sampled(self) -> bool:
        """True when the trajectory ends in a token that the server sampled."""
        return bool(self.segments) and self.segments[-1].kind == "sampled"

    def check(self) -> None:
        """Raise LedgerError when an invariant does not hold."""
        length = len(self.tokens) - self.prompt_length
        if length < 0:
            raise LedgerError(f"{len(self.tokens)} tokens are fewer than the prompt's {self.prompt_length}")
        if len(self.loss_mask) != length or len(self.log_probs) != length:
            raise LedgerError(
                f"response of {length} tokens has {len(self.loss_mask)} mask entries and "
                f"{len(self.log_probs)} log-probabilities"
            )
        position = self.prompt_length
        for segment in self.segments:
            if segment.start != position or segment.stop <= segment.start:
                raise LedgerError(f"segment {segment} does not continue at position {position}")
            first, last = segment.start - self.prompt_length, segment.stop - self.prompt_length
            wanted = 1 if segment.kind == "sampled" and not segment.masked else 0
            if any(mask != wanted for mask in self.loss_mask[first:last]):
                raise LedgerError(f"loss mask is not {wanted} all over {segment}")
            if segment.kind == "context" and any(value != 0.0 for value in self.log_probs[first:last]):
                raise LedgerError(f"a context token has a log-probability in {segment}")
            position = segment.stop
        if position != len(self.tokens):
            raise LedgerError(f"segments end at {position}, tokens at {len(self.tokens)}")
        if self.replay is not None:
            sampled = [segment.stop - 1 for segment in self.segments if segment.kind == "sampled"]
            try:
                self.replay.check(length, len(self.tokens), sampled[-1] if sampled else None)
            except (ValueError, TokenTruthError) as error:
                raise LedgerError(str(error)) from error

    # --- carrying an unfinished trajectory over to the next rollout

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able copy; `from_dict` restores an equal ledger."""
        return {
            "prompt_length": self.prompt_length,
            "tokens": list(self.tokens),
            "loss_mask": list(self.loss_mask),
            "log_probs": list(self.log_probs),
            "weight_versions": list(self.weight_versions),
            "segments": [asdict(segment) for segment in self.segments],
            **({"replay": self.replay.to_dict()} if self.replay is not None else {}),
        }

    @classmethod
    def resume(
        cls,
        tokens: Sequence[int],
        loss_mask: Sequence[int],
        log_probs: Sequence[float],
        weight_versions: Sequence[str],
        segments: Sequence[Mapping[str, Any]],
        replay: Replay | None = None,
    ) -> TokenLedger:
        """The ledger of a trajectory that comes back from slime's buffer, ready to be continued.

        ``loss_mask`` is taken as given: a sampled segment whose mask slime set to zero stays out of the loss. Raises
        LedgerError when the parts do not belong together.
        """
        prompt_length = len(tokens) - len(loss_mask)
        given = []
        for segment in segments:
            mask = loss_mask[segment["start"] - prompt_length : segment["stop"] - prompt_length]
            given.append({**segment, "masked": segment["kind"] == "sampled" and not any(mask)})
        ledger = cls.from_dict(
            {
                "prompt_length": prompt_length,
                "tokens": tokens,
                "loss_mask": loss_mask,
                "log_probs": log_probs,
                "weight_versions": weight_versions,
                "segments": given,
            }
        )
        ledger.replay = replay
        ledger.check()
        return ledger

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TokenLedger:
        """Restore a snapshot; raises LedgerError when it is not one or its invariants do not hold."""
        try:
            ledger = cls(data["tokens"][: data["prompt_length"]])
            ledger.tokens = [int(token) for token in data["tokens"]]
            ledger.loss_mask = [int(mask) for mask in data["loss_mask"]]
            ledger.log_probs = [float(value) for value in data["log_probs"]]
            ledger.weight_versions = [str(version) for version in data["weight_versions"]]
            ledger.segments = [Segment(**segment) for segment in data["segments"]]
            ledger.prompt_length = int(data["prompt_length"])
            ledger.replay = Replay.from_dict(data["replay"]) if data.get("replay") is not None else None
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"not a ledger snapshot: {error!r}") from error
        ledger.check()
        return ledger


def trajectory_digest(tokens: Sequence[int], log_probs: Sequence[float]) -> str:
    """Of the ids and the log-probabilities. The loss mask is left out: slime may take old tokens out of the loss.

    Two samples differ in it exactly if they differ in a number's value; how a number is stored makes no difference.
    """
    text = json.dumps([[int(token) for token in tokens], [float(value) for value in log_probs]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
