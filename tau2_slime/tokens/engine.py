"""Async client of sglang's native ``/generate``: token ids in, token ids and their log-probabilities out.

It keeps the connections of each running event loop, sends a routing key per episode, so that a router stays with one
worker, and retries only what a retry can cure. Every reply is checked against its request before anyone sees it.
"""

from __future__ import annotations

import asyncio
import json
import math
import operator
import random
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from tau2_slime.errors import (
    ContextOverflow,
    EngineRejected,
    EngineUnavailable,
    ReplayUnavailable,
    TokenTruthError,
)
from tau2_slime.runtime import http, sessions
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.server_errors import speaks_of_length
from tau2_slime.tokens.ledger import VersionSpan
from tau2_slime.tokens.replay import CallReplay, ReplayRequest
from tau2_slime.tokens.replay_reply import META_KEYS, read_call_replay

Finish = Literal["stop", "length", "abort"]

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed."""
BACKOFF_FIRST, BACKOFF_MAX = 0.5, 15.0
"""Seconds before the first retry, and at most: a worker restarts, or a router notices a dead one."""
ABORT_GRACE = 0.7
"""Seconds to wait for the partial output of an aborted generation; it comes within milliseconds or not at all."""
_MAX_LOG_PROB = 1e-4
"""Servers compute in 32 bits or fewer: a log-probability this little above 0 is a rounding of 0."""


@dataclass
class Completion:
    """What the server sampled in one call."""

    ids: list[int]
    """Sampled token ids, verbatim, the stop token included; shape (n,)."""
    log_probs: list[float]
    """Natural logarithm of each id's probability, as the server returned it; shape (n,)."""
    finish: Finish
    """Why the server stopped: a stop token or stop string, the token limit, or an abort."""
    matched: int | str | None = None
    """What the server stopped on, if it said."""
    weight_version: str | None = None
    """The weights that sampled it, if the server named them; the last ones if they changed."""
    spans: list[VersionSpan] = field(default_factory=list)
    """Which weights sampled which ids, if the server says so (sglang 0.5.20 and later)."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The reply's ``meta_info``, without what `replay` holds."""
    retries: int = 0
    """Failed tries before this one."""
    replay: CallReplay | None = None
    """What came back for the trainer to replay, if it was asked for."""


@dataclass(frozen=True)
class SglangEngine:
    """``/generate`` of one router (or of one worker). It connects when it is first used."""

    url: str
    """``http://host:port``."""
    _: KW_ONLY
    timeout: float = 1800.0
    """Seconds that one try may take."""
    retries: int = 6
    """Further tries after the first."""
    vocabulary: int | None = None
    """How many token ids the model has, if that is known; no sampled id may lie beyond."""

    async def generate(
        self,
        input_ids: list[int],
        sampling_params: dict[str, Any],
        *,
        routing_key: str,
        aborted: Callable[[], bool] = lambda: False,
        replay: ReplayRequest | None = None,
        written: bytes | bytearray | None = None,
    ) -> Completion:
        """Sample a continuation.

        Args:
            input_ids: the whole trajectory so far, shape (T,).
            sampling_params: sglang's; sent as they are.
            routing_key: the same for all calls of an episode.
            aborted: asked several times a second while the server samples.
            replay: what the trainer replays. The completion carries it; an aborted reply without it counts as one that
                sampled nothing.
            written: ``input_ids`` in JSON without the brackets, from a caller that keeps them so.

        Returns:
            The completion; its ``finish`` is ``abort`` if the server cut it short.

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            EngineRejected: another 4xx.
            EngineUnavailable: no usable reply after every retry.
            TokenTruthError: the reply contradicts the request or itself.
            ReplayUnavailable: the reply lacks what ``replay`` asks for.
            EpisodeAborted: ``aborted()`` became true and the server did not answer in time.
        """
        rest = {"sampling_params": sampling_params, "return_logprob": True, **(replay.payload() if replay else {})}
        ids = http.write_json(input_ids)[1:-1] if written is None else written
        body = b"".join((b'{"input_ids":[', ids, b"],", http.write_json(rest)[1:]))
        most = sampling_params.get("max_new_tokens")
        # Counted generously: a token with its log-probability, or with what the trainer replays of it.
        tokens = len(input_ids) + (most if isinstance(most, int) and most > 0 else 2**16)
        max_bytes = 2**20 + tokens * (512 if replay is None else 2**16)
        problem = ""  # not the exception: its traceback holds this frame, which would hold it
        for attempt in range(self.retries + 1):
            if attempt:
                delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random())
                async with UntilAbort(aborted):
                    await asyncio.sleep(delay)
            try:
                async with UntilAbort(aborted, grace=ABORT_GRACE):
                    reply = await self._post(body, routing_key, max_bytes)
                completion = read_reply(reply, input_ids, replay, most=most, vocabulary=self.vocabulary)
            except EngineUnavailable as error:
                problem = str(error)
                continue
            completion.retries = attempt
            return completion
        raise EngineUnavailable(f"{problem} (gave up after {self.retries + 1} tries)")

    async def _post(self, request: bytes, routing_key: str, max_bytes: int) -> object:
        """The reply's JSON value; raises an EngineError for anything but HTTP 200 with JSON."""
        import aiohttp

        address = f"{self.url.rstrip('/')}/generate"
        try:
            answer = await http.post(
                sessions.inside(),
                address,
                request,
                headers={"X-SMG-Routing-Key": routing_key},
                within=aiohttp.ClientTimeout(total=self.timeout, sock_connect=20),
                max_bytes=max_bytes,
                keyless=True,
            )
        except http.Redirected as error:
            raise EngineRejected(f"{address}: {error}") from None
        except http.AnswerRefused as error:
            raise EngineUnavailable(f"{address}: {error}") from None
        except TimeoutError:
            raise EngineUnavailable(f"{address}: no answer within {self.timeout:g} s") from None
        except http.NoAnswer as error:
            raise EngineUnavailable(f"{address}: {error}") from None
        if answer.status == 200:
            try:
                return http.read_json(answer.body, max_pieces=None)
            except ValueError as error:  # not JSON, an endless number, endless nesting
                raise EngineUnavailable(f"{address}: the reply is not JSON: {_excerpt(answer.text)}") from error
        status, body = answer.status, answer.text
        message = f"{address}: HTTP {status}: {_excerpt(body)}"
        if status in RETRY_STATUS:
            raise EngineUnavailable(message)
        if status in (400, 413) and speaks_of_length(body):
            raise ContextOverflow(message)
        raise EngineRejected(message)


def read_reply(
    reply: object,
    input_ids: list[int],
    replay: ReplayRequest | None = None,
    *,
    most: int | None = None,
    vocabulary: int | None = None,
) -> Completion:
    """Check a ``/generate`` reply against its request, and take it apart.

    Args:
        reply: the JSON value.
        input_ids: what was sent, shape (T,).
        replay: what was asked for.
        most: the request's ``max_new_tokens``; tokens beyond it are left out.
        vocabulary: ids lie below it, if it is known.

    Raises:
        EngineUnavailable: the reply does not have the form of one; a retry may cure that.
        TokenTruthError: counts, ids, log-probabilities or replay data disagree, or the server reports NaN.
        ReplayUnavailable: what ``replay`` asks for is not there, and the server did not abort.
    """
    if not isinstance(reply, dict) or not isinstance(reply.get("meta_info"), dict):
        raise EngineUnavailable(
            f"the reply does not come from sglang's /generate: {_excerpt(json.dumps(reply, default=str))}"
        )
    meta = reply["meta_info"]
    reason = meta.get("finish_reason")
    kind = reason.get("type") if isinstance(reason, dict) else None
    if kind not in ("stop", "length", "abort"):
        raise EngineUnavailable(f"the reply has no finish_reason: {_excerpt(json.dumps(meta, default=str))}")
    entries = meta.get("output_token_logprobs") or []
    try:
        ids = [operator.index(entry[1]) for entry in entries]
        log_probs = [float(entry[0]) for entry in entries]
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise TokenTruthError(f"output_token_logprobs cannot be read: {error}") from error
    if ids and not (min(ids) >= 0 and max(ids) < (vocabulary or 2**31)):
        known = f"the vocabulary has {vocabulary}" if vocabulary else "ids are numbers of 31 bits"
        raise TokenTruthError(f"the server returned token ids from {min(ids)} to {max(ids)}; {known}")
    if any(not -math.inf < log_prob <= _MAX_LOG_PROB for log_prob in log_probs):  # catches NaN too
        raise TokenTruthError("the server returned a log-probability that cannot be one (NaN, infinite or above 0)")
    matched = reason.get("matched")
    if isinstance(matched, str) and "nan" in matched.lower():
        raise TokenTruthError(f"the server stopped on {matched!r}: its logits were not numbers")
    output_ids = reply.get("output_ids")
    if output_ids is not None and output_ids != ids and not (kind == "abort" and not ids):
        count = len(output_ids) if isinstance(output_ids, list) else type(output_ids).__name__
        raise TokenTruthError(
            f"output_ids ({count}) and output_token_logprobs ({len(ids)}) disagree; was return_logprob dropped?"
        )
    for key, expected in (("completion_tokens", len(ids)), ("prompt_tokens", len(input_ids))):
        found = meta.get(key)
        left_out = kind == "abort" and key == "completion_tokens" and not ids  # an aborted reply may do that
        if found is not None and found != expected and not left_out:
            raise TokenTruthError(f"the server counts {key}={found}, the trajectory has {expected}")
    if kind == "stop" and not ids:
        raise TokenTruthError("the server says that it stopped but returned no token")
    if kind == "stop" and isinstance(matched, int) and matched != ids[-1]:
        raise TokenTruthError(f"the server says that it stopped on {matched} but the last sampled id is {ids[-1]}")
    version = meta.get("weight_version")
    light = {key: value for key, value in meta.items() if key not in META_KEYS}
    completion = Completion(ids, log_probs, kind, matched, None if version is None else str(version), meta=light)
    if meta.get("weight_versions") and (ids or kind != "abort"):  # of ids that an aborted reply may leave out
        completion.spans = _version_spans(meta["weight_versions"], len(ids))
    if replay is not None:
        try:
            completion.replay = read_call_replay(meta, replay, given=len(input_ids), sampled=len(ids))
        except ReplayUnavailable:
            if kind != "abort":
                raise
            completion.ids, completion.log_probs, completion.spans = (
                [],
                [],
                [],
            )  # it waited to be resumed; the caller samples it again
    if (
        most is not None and len(completion.ids) > most
    ):  # what lies beyond was never asked for: the turn ends at its limit
        if replay is not None:
            raise TokenTruthError(f"the server sampled {len(ids)} tokens where max_new_tokens was {most}")
        completion.ids, completion.log_probs = ids[:most], log_probs[:most]
        completion.spans = [span._replace(stop=min(span.stop, most)) for span in completion.spans if span.start < most]
        completion.finish, completion.matched = "length", None
    return completion


def _version_spans(given: object, sampled: int) -> list[VersionSpan]:
    """``meta_info["weight_versions"]``.

    Raises:
        TokenTruthError: they cannot be read, or do not cover the sampled ids in order.
    """
    try:
        if not isinstance(given, list):
            raise TypeError(type(given).__name__)
        spans = [
            VersionSpan(str(one["version"]), operator.index(one["start"]), operator.index(one["end"])) for one in given
        ]
    except (TypeError, KeyError) as error:
        raise TokenTruthError(f"weight_versions cannot be read: {error!r}") from error
    if [0, *(span.stop for span in spans)] != [*(span.start for span in spans), sampled]:
        raise TokenTruthError(f"weight_versions do not cover the {sampled} sampled tokens: {given}")
    return spans


def _excerpt(text: str, limit: int = 200) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[:limit] + "…"
