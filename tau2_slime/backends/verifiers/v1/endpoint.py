"""The model as a v1 harness reaches it: verifiers' interception endpoint, which records every turn in the trace.

verifiers never retries a model call; that is the harness's job. All tries of a turn carry the same ``Idempotency-Key``, so
the turn is recorded once.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from typing import TYPE_CHECKING

from tau2_slime.backends.chat_wire import reply_to_send_back
from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.runtime.server_errors import speaks_of_length
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

        self._session = aiohttp.ClientSession(headers=self._headers)  # the endpoint is in this process: no proxy
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def complete(self, messages: list[ChatMessage], tools: list[Tool]) -> tuple[ChatMessage, str | None]:
        """The model's message, ready to be sent back, and its finish reason (``stop``, ``tool_calls``, ``length``, ...).

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            EngineRejected: another 4xx. verifiers also answers so when it ends the rollout.
            EngineUnavailable: no try gave a usable answer.
        """
        body: dict[str, object] = {"model": self._model, "messages": messages, **({"tools": tools} if tools else {})}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        failure: EngineUnavailable | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            status, text = await self._post(body, headers)
            if status == 200:
                return _read_completion(text)
            if status not in RETRY_STATUS:
                raise _rejection(status, text)
            failure = EngineUnavailable(f"the model's endpoint: HTTP {status}: {_error_message(text)}")
        raise EngineUnavailable(f"{failure} (gave up after {self._retries + 1} tries)")

    async def _post(self, body: dict[str, object], headers: dict[str, str]) -> tuple[int, str]:
        import aiohttp

        assert self._session is not None, "an Endpoint is used inside its context"
        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._session.post(self.url, json=body, headers=headers, timeout=timeout) as response:
                return response.status, await response.text(errors="replace")
        except TimeoutError as error:  # no retry: verifiers would go on waiting for the same reply
            raise EngineUnavailable(f"the model's endpoint: no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"verifiers' interception: {type(error).__name__}: {error}") from error


def _read_completion(text: str) -> tuple[ChatMessage, str | None]:
    try:
        choice = json.loads(text)["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineUnavailable(
            f"the model's endpoint: the answer is not a chat completion: {_error_message(text)}"
        ) from error
    if finish == "content_filter" and not message.get("content") and not message.get("tool_calls"):
        raise EngineRejected("the model's endpoint filtered its reply (finish_reason content_filter)")
    return reply_to_send_back(message), finish


def _rejection(status: int, text: str) -> EngineRejected:
    kind = ContextOverflow if status in (400, 413) and speaks_of_length(text) else EngineRejected
    return kind(f"the model's endpoint: HTTP {status}: {_error_message(text)}")


def _error_message(text: str) -> str:
    """The message in a server's error body, else the body; one line of at most 300 characters."""
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        pass
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:300] + "…"
