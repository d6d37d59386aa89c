"""The model as a v1 harness reaches it: verifiers' interception endpoint, which records every turn in the trace.

verifiers never retries a model call; that is the harness's job. All tries of a turn carry the same ``Idempotency-Key``, so
the turn is recorded once.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import TYPE_CHECKING

from tau2_slime.chat.completion import Completion, read_completion
from tau2_slime.chat.faults import CallFailed, Fault, UnusableMessage, of_status
from tau2_slime.episode.transcript import PolicyStopped
from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.outcome import Termination
from tau2_slime.runtime import http
from tau2_slime.tokens.calls.types import Tool
from tau2_slime.tokens.engine import BACKOFF_FIRST, BACKOFF_MAX, RETRY_STATUS

if TYPE_CHECKING:
    import aiohttp

    from tau2_slime.backends.turns import ChatMessage


class Endpoint:
    """One rollout's chat-completions endpoint; an asynchronous context manager for its connections."""

    def __init__(self, url: str, secret: str, model: str, *, timeout: float, retries: int) -> None:
        """``url``: ends with ``/v1``. ``timeout``: seconds for one try. ``retries``: tries after the first."""
        self.url = f"{url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._model, self._timeout, self._retries = model, timeout, retries
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Endpoint:
        import aiohttp

        # The endpoint is in this process: no proxy.
        self._session = aiohttp.ClientSession(headers=self._headers, auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def complete(self, messages: list[ChatMessage], tools: list[Tool]) -> Completion:
        """The model's answer.

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            EngineRejected: another 4xx. verifiers also answers so when it ends the rollout.
            EngineUnavailable: no try gave a usable answer.
            PolicyStopped: what the model said cannot be used.
        """
        body: dict[str, object] = {"model": self._model, "messages": messages, **({"tools": tools} if tools else {})}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        failure: CallFailed | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            answer = await self._post(body, headers)
            try:
                if answer.status == 200:
                    return _read(answer.text)
                failure = of_status(answer.status, answer.text, where=f"HTTP {answer.status}: ")
            except UnusableMessage as error:
                raise PolicyStopped(Termination.AGENT_ERROR, f"the policy's message cannot be used: {error}") from None
            except CallFailed as error:
                raise EngineUnavailable(f"the model's endpoint: the answer is not a chat completion: {error}") from None
            if answer.status not in RETRY_STATUS:
                kind = ContextOverflow if failure.fault is Fault.CONTEXT_OVERFLOW else EngineRejected
                raise kind(f"the model's endpoint: {failure}")
        raise EngineUnavailable(f"the model's endpoint: {failure} (gave up after {self._retries + 1} tries)")

    async def _post(self, body: dict[str, object], headers: dict[str, str]) -> http.Answer:
        import aiohttp

        assert self._session is not None, "an Endpoint is used inside its context"
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            return await http.post(self._session, self.url, body, headers=headers, within=timeout)
        except TimeoutError:  # no retry: verifiers would go on waiting for the same reply
            raise EngineUnavailable(f"the model's endpoint: no answer within {self._timeout:g} s") from None
        except http.AnswerRefused as error:
            raise EngineRejected(f"the model's endpoint: {error}") from None
        except http.NoAnswer as error:
            raise EngineUnavailable(f"verifiers' interception: {error}") from None


def _read(text: str) -> Completion:
    try:
        return read_completion(http.read_json(text))
    except ValueError as error:
        raise CallFailed(Fault.GARBAGE, f"{error}: {text}") from None
