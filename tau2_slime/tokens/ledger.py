"""The tokens of one trajectory, with a loss mask and a log-probability for each token after the prompt.

This module provides:

* `TokenLedger`: grows with every generate call (`append_sampled`) and with every message in between (`append_context`).
* `Segment`: a run of tokens from one source; the segments of a ledger cover everything after the prompt.
* `LedgerError`: raised instead of recording something untrue.

A training run reads `tokens`, `loss_mask`, `log_probs` and `prompt_length`:

>>> ledger = TokenLedger(prompt_ids=[1, 2, 3])
>>> ledger.append_sampled([10, 11], log_probs=[-0.5, -0.25], weight_version="7")  # the policy's turn
>>> ledger.append_context([20, 21, 22])  # a tool result, in the chat template's own words
>>> ledger.append_sampled([12], log_probs=[-1.0], weight_version="8")  # the policy's next turn
>>> ledger.tokens
[1, 2, 3, 10, 11, 20, 21, 22, 12]
>>> ledger.loss_mask
[1, 1, 0, 0, 0, 1]
>>> ledger.log_probs
[-0.5, -0.25, 0.0, 0.0, 0.0, -1.0]
>>> [(segment.kind, segment.start, segment.stop, segment.weight_version) for segment in ledger.segments]
[('sampled', 3, 5, '7'), ('context', 5, 8, None), ('sampled', 8, 9, '8')]

The ledger is append-only, with one exception, `pop_stop`: when the server stopped on another token than the chat template
writes at the end of a turn, the last sampled token goes, and the template's token follows as context.

>>> ledger.pop_stop()
12
>>> ledger.append_context([30])
>>> ledger.tokens[-2:], ledger.loss_mask[-2:]
([22, 30], [0, 0])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from tau2_slime.errors import TokenTruthError
from tau2_slime.tokens.replay import NOTHING, CallReplay, Replay, ReplaySpec


class LedgerError(ValueError):
    """An operation or a state that would make a training token untrue."""


class VersionSpan(NamedTuple):
    """Sampled ids ``[start, stop)`` of one generate call, counted from its first, and the weights that sampled them."""

    version: str | None
    start: int
    stop: int


@dataclass
class Segment:
    """A run of tokens that came from one source."""

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
    """One trajectory of T tokens, the first P of which are the prompt; T - P is the response.

    The loss mask is 1 on sampled tokens and 0 on context. It is also 0 on a sampled segment that slime masked as off-policy
    between two rollouts.
    """

    def __init__(self, prompt_ids: Sequence[int], replay: ReplaySpec | None = None) -> None:
        """A ledger that holds the prompt only.

        Args:
            prompt_ids: token ids, Python integers, shape (P,).
            replay: what the trainer replays beside the tokens; then every sampled run must bring it.
        """
        self.tokens: list[int] = list(prompt_ids)
        """Token ids, prompt and response, shape (T,)."""
        self.prompt_length: int = len(self.tokens)
        self.loss_mask: list[int] = []
        """0 or 1, shape (T - P,)."""
        self.log_probs: list[float] = []
        """Natural logarithms, as the server returned them; 0.0 on context; shape (T - P,)."""
        self.weight_versions: list[str] = []
        """One entry for each generate call that named its weights, and one for each change within a call, in order."""
        self.segments: list[Segment] = []
        """What was appended after the prompt, in order; together they cover the response without a gap."""
        self.sampled_count = self.context_count = 0
        """How many tokens of the response were sampled (those that slime masked included), and how many are context."""
        self.replay: Replay | None = Replay(replay) if replay is not None and replay != NOTHING else None
        self._written, self._written_count = bytearray(), 0

    # --- appending

    def append_sampled(
        self,
        ids: Sequence[int],
        log_probs: Sequence[float],
        weight_version: str | None = None,
        replay: CallReplay | None = None,
        spans: Sequence[VersionSpan] = (),
    ) -> None:
        """Append what one generate call sampled, the stop token included: mask 1.

        Args:
            ids: sampled token ids, Python integers, shape (n,).
            log_probs: their natural log-probabilities, shape (n,).
            weight_version: the weights that sampled them, if the server named them.
            replay: the replay data of the call, if this trajectory wants some.
            spans: if the weights changed within the call: which version sampled which of the n ids. They cover all of them,
                in order, and take the place of ``weight_version``.

        Raises:
            LedgerError: ids and log-probabilities differ in number, ``spans`` do not cover the ids, a log-probability is
                not finite, or ``replay`` is not what this trajectory needs for these tokens. Nothing is appended then.
        """
        if len(ids) != len(log_probs):
            raise LedgerError(f"{len(ids)} sampled ids but {len(log_probs)} log-probabilities")
        values = list(map(float, log_probs))
        if not all(map(math.isfinite, values)):
            bad = next(index for index, value in enumerate(values) if not math.isfinite(value))
            raise LedgerError(f"log-probability {values[bad]} of sampled token {bad} is not a finite number")
        spans = spans or [VersionSpan(weight_version, 0, len(ids))]
        if [0, *(span.stop for span in spans)] != [*(span.start for span in spans), len(ids)]:
            raise LedgerError(f"the spans of weight versions do not cover the {len(ids)} sampled ids: {list(spans)}")
        if self.replay is not None:
            try:
                self.replay.append_sampled(replay, len(ids), len(self.tokens) + len(ids))
            except (ValueError, TokenTruthError) as error:
                raise LedgerError(str(error)) from error
        self.weight_versions += [str(span.version) for span in spans if span.version is not None]
        if not ids:
            return
        start = len(self.tokens)
        self.tokens += ids
        self.loss_mask += [1] * len(ids)
        self.log_probs += values
        self.segments += [
            Segment("sampled", start + span.start, start + span.stop, span.version)
            for span in spans
            if span.stop > span.start
        ]
        self.sampled_count += len(ids)

    def append_context(self, ids: Sequence[int]) -> None:
        """Append the token ids, Python integers, shape (n,), that the chat template wrote: mask 0, log-probability 0.0."""
        if self.replay is not None:
            self.replay.append_context(len(ids))
        if not ids:
            return
        start = len(self.tokens)
        self.tokens += ids
        self.loss_mask += [0] * len(ids)
        self.log_probs += [0.0] * len(ids)
        self.segments.append(Segment("context", start, len(self.tokens)))
        self.context_count += len(ids)

    def pop_stop(self) -> int:
        """Drop the last token, with its mask, log-probability and replay data, and return its id.

        Raises:
            LedgerError: that token was not sampled.
        """
        if not self.last_is_sampled:
            raise LedgerError("the last token was not sampled: only a sampled stop token may be replaced")
        segment = self.segments[-1]
        segment.stop -= 1
        if segment.stop == segment.start:
            self.segments.pop()
        self.sampled_count -= 1
        self.loss_mask.pop()
        self.log_probs.pop()
        if self.replay is not None:
            self.replay.pop_last(len(self.tokens) - 1)
        if self._written_count == len(self.tokens):
            del self._written[max(0, self._written.rfind(b",")) :]
            self._written_count -= 1
        return self.tokens.pop()

    # --- looking

    @property
    def response_length(self) -> int:
        """T - P, in tokens."""
        return len(self.tokens) - self.prompt_length

    def written(self) -> bytearray:
        """The tokens as a request has them: JSON without the brackets. Each is written once; read it, never write to it."""
        if self._written_count < len(self.tokens):
            comma = b"," if self._written_count else b""
            self._written += comma + orjson.dumps(self.tokens[self._written_count :])[1:-1]
            self._written_count = len(self.tokens)
        return self._written

    @property
    def last_is_sampled(self) -> bool:
        """True when the trajectory ends in a token that the server sampled."""
        return bool(self.segments) and self.segments[-1].kind == "sampled"

    def check(self) -> None:
        """Raise LedgerError when the parts of the ledger do not belong together."""
        length = self.response_length
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
                raise LedgerError(f"the loss mask is not {wanted} everywhere in {segment}")
            if segment.kind == "context" and any(value != 0.0 for value in self.log_probs[first:last]):
                raise LedgerError(f"a context token has a log-probability in {segment}")
            position = segment.stop
        if position != len(self.tokens):
            raise LedgerError(f"segments end at {position}, tokens at {len(self.tokens)}")
        if self.replay is not None:
            last_sampled = max(
                (segment.stop - 1 for segment in self.segments if segment.kind == "sampled"), default=None
            )
            try:
                self.replay.check(length, len(self.tokens), last_sampled)
            except (ValueError, TokenTruthError) as error:
                raise LedgerError(str(error)) from error

    # --- carrying an unfinished trajectory over to the next rollout

    def to_dict(self) -> dict[str, Any]:
        """A copy of JSON values; `from_dict` restores an equal ledger."""
        return {
            "prompt_length": self.prompt_length,
            "tokens": list(self.tokens),
            "loss_mask": list(self.loss_mask),
            "log_probs": list(self.log_probs),
            "weight_versions": list(self.weight_versions),
            "segments": [{**vars(segment)} for segment in self.segments],
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

        Args:
            tokens: prompt and response, shape (T,).
            loss_mask: shape (T - P,). It is taken as given: a sampled segment whose mask slime set to zero stays out of the
                loss.
            log_probs: natural logarithms, shape (T - P,).
            weight_versions: as `weight_versions`.
            segments: each as ``dataclasses.asdict`` makes it of a `Segment`.
            replay: the replay data that was saved with the trajectory.

        Raises:
            LedgerError: the parts do not belong together.
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
        """Restore a snapshot that `to_dict` made; raises LedgerError when it is not one, or its parts do not fit."""
        try:
            ledger = cls(data["tokens"][: data["prompt_length"]])
            ledger.tokens = [int(token) for token in data["tokens"]]
            ledger.loss_mask = [int(mask) for mask in data["loss_mask"]]
            ledger.log_probs = [float(value) for value in data["log_probs"]]
            ledger.weight_versions = [str(version) for version in data["weight_versions"]]
            ledger.segments = [Segment(**segment) for segment in data["segments"]]
            ledger.prompt_length = int(data["prompt_length"])
            for segment in ledger.segments:
                if segment.kind == "sampled":
                    ledger.sampled_count += segment.stop - segment.start
            ledger.context_count = len(ledger.loss_mask) - ledger.sampled_count
            ledger.replay = Replay.from_dict(data["replay"]) if data.get("replay") is not None else None
        except (KeyError, TypeError, ValueError) as error:
            raise LedgerError(f"not a ledger snapshot: {error!r}") from error
        ledger.check()
        return ledger
