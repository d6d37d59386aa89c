"""The HTTP client that litellm is given for OpenAI's protocol: no redirects, answers of a bounded size, kept as they came.

litellm's own client follows redirects, and with them the conversation, and unpacks whatever comes. What litellm makes of an
answer is not what came: it fails on text in parts, and loses an error under HTTP 200.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from tau2_slime.runtime.http import MAX_BYTES, AnswerRefused
from tau2_slime.runtime.loops import PerLoop
from tau2_slime.runtime.secrets import redact_words

if TYPE_CHECKING:
    from httpx import AsyncByteStream, Response
    from openai import AsyncOpenAI

answers: ContextVar[list[str] | None] = ContextVar("tau2_slime_answers", default=None)
"""The texts of the answers under HTTP 200 to the running call, kept if somebody has set a list."""

_clients: PerLoop[dict[tuple[str, str], AsyncOpenAI]] = PerLoop(dict)


def bounded_client(base_url: str, key: str) -> AsyncOpenAI:
    """This loop's client for an endpoint."""
    clients = _clients.get()
    if (base_url, key) not in clients:
        clients[base_url, key] = _build(base_url, key)
    return clients[base_url, key]


def _build(base_url: str, key: str) -> AsyncOpenAI:
    import httpx
    from openai import AsyncOpenAI

    http_client = httpx.AsyncClient(
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound]},
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
    )
    # openai's annotations know another package's client, litellm gives it httpx's as well
    return AsyncOpenAI(base_url=base_url, api_key=key, http_client=http_client, max_retries=0)  # type: ignore[arg-type]


async def _bound(response: Response) -> None:
    packing = response.headers.get("Content-Encoding", "identity")
    if packing.lower() != "identity":
        raise AnswerRefused(f"the answer is packed as {packing[:40]!r}, which was not asked for")
    response.stream = _bounded_stream()(response)


@cache
def _bounded_stream() -> Callable[[Response], AsyncByteStream]:
    """A class, made once: a class is a reference cycle, and httpx is not imported with this module."""
    import httpx

    class Bounded(httpx.AsyncByteStream):
        def __init__(self, response: Response) -> None:
            assert isinstance(response.stream, httpx.AsyncByteStream)
            self._stream: httpx.AsyncByteStream = response.stream
            self._keep = answers.get() if response.status_code == 200 else None

        async def __aiter__(self) -> AsyncIterator[bytes]:
            body = bytearray()
            async for piece in self._stream:
                body += piece
                if len(body) > MAX_BYTES:
                    raise AnswerRefused(f"the answer is longer than {MAX_BYTES / 2**20:.0f} MiB")
                yield piece
            if self._keep is not None:
                self._keep.append(redact_words(body.decode("utf-8", "replace")))

        async def aclose(self) -> None:
            await self._stream.aclose()
            self._stream = httpx.ByteStream(b"")  # the one that is closed holds the response, which holds this one

    return Bounded
