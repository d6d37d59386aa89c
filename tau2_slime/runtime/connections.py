"""Kept HTTP/1.1 connections for one kind of request: a POST to a plain ``http://`` address, answered as a whole.

A turn of an episode is two such requests, and aiohttp's general client costs several times what reading and writing them
does. httptools, uvicorn's parser, reads the answers. Whatever needs more (https, proxies, odd addresses) is aiohttp's.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from urllib.request import proxy_bypass
from weakref import WeakKeyDictionary

import httptools
from multidict import CIMultiDict

if TYPE_CHECKING:
    from aiohttp import ClientSession

KEPT = 30.0
"""Seconds for which an idle connection is kept."""
_MAX_HEAD = 2**16
"""Bytes of an answer before its body."""
_PLAIN_URL = re.compile(r"http://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~/%:@+-]*)?")
_PLAIN_HEADER = re.compile(r"[\x20-\x7e]*")
_PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class TooLong(Exception):
    """The answer has more bytes than are read."""


class Reply(NamedTuple):
    """An answer as it came; the body may be packed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Target(NamedTuple):
    """Where a request goes."""

    host: str
    port: int
    head: bytes
    """Request line and the headers that are always the same."""


def target(url: str, headers: Mapping[str, str], *, through_proxies: bool) -> Target | None:
    """Where to send the request by itself; None if it needs a client that can do more."""
    found = _target(url)
    if found is None or _PLAIN_HEADER.fullmatch("".join(headers.values())) is None:
        return None
    if through_proxies and any(map(os.environ.get, _PROXIES)) and not proxy_bypass(found.host):
        return None
    return found


@lru_cache(maxsize=64)
def _target(url: str) -> Target | None:
    if _PLAIN_URL.fullmatch(url) is None:
        return None
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        return None
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\nUser-Agent: tau2_slime\r\n"
    return Target(str(parts.hostname), port, head.encode())


class Connections:
    """The open connections of one event loop. ``take_turn``: awaited around each new one, as hundreds may begin at once."""

    def __init__(self, take_turn: Callable[[], Awaitable[None]]) -> None:
        self._take_turn = take_turn
        self._idle: dict[tuple[str, int], dict[_Connection, float]] = {}
        """By host and port, each with the time since when; the one used last stands last."""

    async def post(
        self, to: Target, headers: Mapping[str, str], body: bytes, *, connect_within: float | None, max_bytes: int
    ) -> Reply:
        """The answer. A connection that was not used to its end is closed.

        Raises:
            TooLong: the answer's body has more than ``max_bytes``.
            OSError: no connection, none within ``connect_within`` seconds, or it broke, or what came is not HTTP.
        """
        lines = "".join(map("%s: %s\r\n".__mod__, headers.items()))
        request = b"".join((to.head, lines.encode(), b"Content-Length: %d\r\n\r\n" % len(body), body))
        loop = asyncio.get_running_loop()
        connection, new = self._take(to, loop.time()), False
        if connection is None:
            await self._take_turn()
            connection, new = await self._connect(to, connect_within, loop), True
        try:
            if new:
                await self._take_turn()
            reply = await connection.ask(request, max_bytes, loop)
        except BaseException:  # cancellation too: what still comes must not answer the next request
            connection.close()
            raise
        if connection.reusable:
            idle = self._idle.setdefault((to.host, to.port), {})
            idle[connection] = loop.time()
            connection.idle_in = idle
        else:
            connection.close()
        return reply

    async def _connect(self, to: Target, within: float | None, loop: asyncio.AbstractEventLoop) -> _Connection:
        try:
            async with asyncio.timeout(within):
                return (await loop.create_connection(_Connection, to.host, to.port))[1]
        except TimeoutError as error:
            raise ConnectionError(str(error) or f"no connection within {within:g} s") from None

    def _take(self, to: Target, now: float) -> _Connection | None:
        """An idle connection; those that have been idle for too long are closed."""
        idle = self._idle.get((to.host, to.port))
        while idle:
            oldest = next(iter(idle))
            if now - idle[oldest] < KEPT:
                connection, _ = idle.popitem()
                connection.idle_in = None
                return connection
            oldest.close()
        return None

    def close(self) -> None:
        """Close those that are idle."""
        for idle in self._idle.values():
            for connection in list(idle):
                connection.close()


class _Connection(asyncio.Protocol):
    """One connection, with at most one request at a time."""

    def __init__(self) -> None:
        self.idle_in: dict[_Connection, float] | None = None
        """Where it waits to be used again."""
        self.reusable = False
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Reply] | None = None
        self._status = 0
        self._headers: CIMultiDict[str] = CIMultiDict()
        self._body: list[bytes] = []
        self._size = self._head_size = self._max_bytes = 0
        self._head_read = False

    def ask(self, request: bytes, max_bytes: int, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Reply]:
        """Send the request. The future holds its answer, or what kept it from coming."""
        self.reusable, self._max_bytes = False, max_bytes
        self._answer = loop.create_future()
        if self._transport is None or self._transport.is_closing():
            self._fail(ConnectionResetError("the server has closed the connection"))
        else:
            self._headers, self._body, self._size, self._head_size, self._head_read = CIMultiDict(), [], 0, 0, False
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Drop the connection, and whatever is still to come on it."""
        self._forget()
        self._answer, self.reusable = None, False
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        if self.idle_in is not None:
            self.idle_in.pop(self, None)
            self.idle_in = None

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # ---- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._answer is None or self._answer.done():
            self.close()  # nobody asked: what comes must not answer the next request
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.reusable = False
            self._fail(ConnectionError(f"the answer is not HTTP: {type(error).__name__}: {error}"))
        if not self._head_read:
            self._head_size += len(data)
            if self._head_size > _MAX_HEAD:
                self._fail(ConnectionError(f"the answer has more than {_MAX_HEAD} bytes of headers"))

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        self.reusable = False
        self._transport = self._parser = None  # each holds this object
        if self._answer is None or self._answer.done():
            return
        told = self._headers.keys() & {"Content-Length", "Transfer-Encoding"} or not self._head_read
        if error is None and not told:  # its end is the end of the connection
            self._answer.set_result(Reply(self._status, self._headers, b"".join(self._body)))
            return
        why = f"{type(error).__name__}: {error}" if error is not None else "the server closed it"
        self._fail(ConnectionResetError(f"the connection broke before the answer was whole: {why}"))

    # ---- httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answer is None:  # it follows the answer in one piece, and nobody asked for it
            self.reusable, self._headers = False, CIMultiDict()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.add(name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self._status, self._head_read = self._parser.get_status_code(), True

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._fail(TooLong(f"the answer is longer than {self._max_bytes / 2**20:.0f} MiB"))
            self._body.clear()
        else:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._status < 200:  # an interim answer: the real one follows
            self._headers, self._head_read = CIMultiDict(), False
            return
        if self._answer is None or self._answer.done():
            return
        assert self._transport is not None and self._parser is not None
        self.reusable = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        self._answer.set_result(Reply(self._status, self._headers, b"".join(self._body)))
        self._answer, self._body = None, []  # an idle connection holds no answer


beside: WeakKeyDictionary[ClientSession, Connections] = WeakKeyDictionary()
"""The connections that serve beside a session of aiohttp; whoever closes the session closes them."""
