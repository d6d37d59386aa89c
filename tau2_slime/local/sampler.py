"""One call of sglang's ``/generate``: what is checked, when sampling ends, and what the reply holds."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from tau2_slime.local.policy import GoldPolicy
from tau2_slime.local.spelling import log_prob

DEFAULT_MAX_NEW_TOKENS = 128
"""sglang's own default."""


class BadRequest(Exception):
    """A request that sglang answers with HTTP 400; the text is the message."""


class Sampler:
    """Answers calls with one policy's turns. It belongs to the event loop in which it is used."""

    def __init__(self, policy: GoldPolicy, *, context_length: int, latency: float = 0.0) -> None:
        """``latency``: seconds per sampled token."""
        self.policy, self.context_length, self.latency = policy, context_length, latency
        self.weight_version = "default"
        """In every reply, as sglang has it. Change it to simulate a weight update."""
        self._pending: dict[str, asyncio.Event] = {}

    @property
    def running(self) -> int:
        """Calls in progress."""
        return len(self._pending)

    def abort(self, rid: str | None) -> None:
        """Make the call with the id ``rid`` (None: every call) answer now with what it has sampled so far."""
        for name, aborted in self._pending.items():
            if rid is None or name == rid:
                aborted.set()

    async def generate(self, payload: dict[str, Any], routing_key: str = "") -> dict[str, Any]:
        """The reply to a request body; both are sglang's JSON. ``routing_key``: see `GoldPolicy.continuation`.

        Raises:
            BadRequest: sglang would refuse the body, or it asks for something that is not served here.
        """
        begin = time.perf_counter()
        input_ids, params = _input_ids(payload), payload.get("sampling_params") or {}
        limit = self._limit(len(input_ids), params)
        rid = str(payload.get("rid") or uuid.uuid4().hex)
        if rid in self._pending:
            raise BadRequest(f"Duplicate request ID detected: {rid}")
        aborted = self._pending[rid] = asyncio.Event()
        try:
            ids, reason = _cut(await self._sample(input_ids, routing_key), limit, params)
            done = await self._wait(len(ids), aborted)
        finally:
            del self._pending[rid]
        if done < len(ids):
            ids = ids[:done]
            reason = {"type": "abort", "message": "Aborted", "status_code": None, "err_type": None}
        meta: dict[str, Any] = {
            "id": rid,
            "finish_reason": reason,
            "prompt_tokens": len(input_ids),
            "weight_version": self.weight_version,
            "num_retractions": 0,
            "completion_tokens": len(ids),
            "cached_tokens": 0,
            "e2e_latency": time.perf_counter() - begin,
        }
        if payload.get("return_logprob"):
            meta["input_token_logprobs"] = []
            meta["output_token_logprobs"] = [
                [log_prob(len(input_ids) + i, token), token, None] for i, token in enumerate(ids)
            ]
            meta["output_token_logprobs_length"] = len(ids)
        trim = reason["type"] == "stop" and not params.get("no_stop_trim")
        text = self.policy.template.decode(ids[:-1] if trim else ids)
        return {"text": text, "output_ids": ids, "meta_info": meta}

    async def _sample(self, input_ids: list[int], routing_key: str) -> list[int]:
        policy = self.policy
        position = policy.read(input_ids)
        if policy.knows(position):
            return policy.continuation(position, routing_key=routing_key)
        return await asyncio.to_thread(policy.continuation, position, routing_key=routing_key)

    def _limit(self, prompt: int, params: dict[str, Any]) -> int:
        """Tokens that the call may sample."""
        context = self.context_length
        if prompt >= context:
            raise BadRequest(
                f"The input ({prompt} tokens) is longer than the model's context length ({context} tokens)."
            )
        wanted = params.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
        if wanted is None:
            return context - prompt
        if not isinstance(wanted, int) or wanted < 0:
            raise BadRequest(f"max_new_tokens must be at least 0, got {wanted!r}.")
        if prompt + wanted > context:
            raise BadRequest(
                f"Requested token count exceeds the model's maximum context length of {context} tokens: {prompt} tokens "
                f"from the input messages and {wanted} tokens for the completion."
            )
        return wanted

    async def _wait(self, tokens: int, aborted: asyncio.Event) -> int:
        """Wait as long as sampling ``tokens`` takes. Returns how many were sampled when that ended or was aborted."""
        begin = time.perf_counter()
        if self.latency > 0:
            try:
                await asyncio.wait_for(aborted.wait(), tokens * self.latency)
            except TimeoutError:
                return tokens
            return min(tokens, int((time.perf_counter() - begin) / self.latency))
        return 0 if aborted.is_set() else tokens


def _input_ids(payload: dict[str, Any]) -> list[int]:
    ids = payload.get("input_ids")
    if payload.get("stream"):
        raise BadRequest("the embedded policy does not stream")
    if not isinstance(ids, list) or not ids:
        raise BadRequest("input_ids must be a non-empty list of token ids.")
    if not all(isinstance(token, int) and token >= 0 for token in ids):
        raise BadRequest("input_ids must hold non-negative integers; batches are not served here.")
    return ids


def _cut(ids: list[int], limit: int, params: dict[str, Any]) -> tuple[list[int], dict[str, Any]]:
    """The part of ``ids`` that is sampled, and sglang's finish reason; as in sglang, the length limit comes first."""
    stops = set(params.get("stop_token_ids") or [])
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids) - 1)
    if end + 1 >= limit:
        return ids[:limit], {"type": "length", "length": limit}
    return ids[: end + 1], {"type": "stop", "matched": ids[end]}
