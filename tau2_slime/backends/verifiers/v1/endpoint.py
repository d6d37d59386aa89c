"""The model as a v1 harness reaches it: verifiers' interception endpoint, which records every turn in the trace.

verifiers itself never retries a model call; that is left to the harness. A turn carries one ``Idempotency-Key`` through all
its tries, so that it is recorded once, however often it was asked for.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from typing import Any

from tau2_slime.backends.chat_wire import as_said
from tau2_slime.errors import ContextOverflow, EngineRejected, EngineUnavailable
from tau2_slime.runtime.server_errors import speaks_of_length
from tau2_slime.tokens.calls.types import Tool
from tau2_slime.tokens.engine import BACKOFF_FIRST, BACKOFF_MAX, RETRY_STATUS


class Endpoint:
    """One rollout's chat-completions endpoint; an asynchronous context manager for as long as its connections live."""

    def __init__(self, url: str, secret: str, model: str, *, timeout: float, retries: int) -> None:
        """``url``: up to and with ``/v1``. ``timeout``: seconds for one call. ``retries``: further tries."""
        self.url = f"{url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {secret}"}
        self._model, self._timeout, self._retries = model, timeout, retries
        self._session: Any = None

    async def __aenter__(self) -> Endpoint:
        import aiohttp

        self._session = aiohttp.ClientSession(headers=self._headers)  # in this process: no proxy is asked
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def complete(self, messages: list[dict[str, Any]], tools: list[Tool]) -> tuple[dict[str, Any], str | None]:
        """The model's message (as it is to be sent back) and why it ended (``stop``, ``tool_calls``, ``length``, ...).

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            EngineRejected: another 4xx; verifiers answers so, too, when it ends the rollout.
            EngineUnavailable: no usable answer after every retry.
        """
        body = {"model": self._model, "messages": messages, **({"tools": tools} if tools else {})}
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        failure: EngineUnavailable | None = None
        for attempt in range(self._retries + 1):
            if attempt:
                await asyncio.sleep(min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** (attempt - 1)) * (0.5 + random.random()))
            status, text = await self._post(body, headers)
            if status == 200:
                return _read(text)
            if status not in RETRY_STATUS:
                raise _rejection(status, text)
            failure = EngineUnavailable(f"the model's endpoint: HTTP {status}: {_message(text)}")
        raise EngineUnavailable(f"{failure} (gave up after {self._retries + 1} tries)")

    async def _post(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str]:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._timeout)
        try:
            async with self._session.post(self.url, json=body, headers=headers, timeout=timeout) as response:
                return response.status, await response.text(errors="replace")
        except TimeoutError as error:  # asked again, verifiers would go on waiting for the same reply
            raise EngineUnavailable(f"the model's endpoint: no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise EngineUnavailable(f"verifiers' interception: {type(error).__name__}: {error}") from error


def _read(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        choice = json.loads(text)["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineUnavailable(f"the model's endpoint: no chat completion: {_message(text)}") from error
    if finish == "content_filter" and not message.get("content") and not message.get("tool_calls"):
        raise EngineRejected("the model's endpoint filtered its reply (finish_reason content_filter)")
    return as_said(message), finish


def _rejection(status: int, text: str) -> EngineRejected:
    kind = ContextOverflow if status in (400, 413) and speaks_of_length(text) else EngineRejected
    return kind(f"the model's endpoint: HTTP {status}: {_message(text)}")


def _message(text: str) -> str:
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError):
        pass
    flat = " ".join(text.split())
    return flat if len(flat) <= 300 else flat[:300] + "…"
