"""One request and its answer, whatever the other side sends: bounded in bytes, nesting and pieces, UTF-8, never redirected.

Every endpoint is asked through here. What an answer costs to read is decided by these bounds and not by whoever sends it.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from tau2_slime.runtime import connections, tracebacks
from tau2_slime.runtime.loops import take_turn
from tau2_slime.runtime.secrets import redact, redact_words

if TYPE_CHECKING:
    from aiohttp import ClientSession, ClientTimeout

MAX_BYTES = 8 * 2**20
"""Of an answer, unpacked. A chat completion with every log-probability is smaller."""
MAX_PIECES = 150_000
"""Values in the JSON of an answer, counted from above."""
MAX_DEPTH = 64
"""Nesting of the JSON of an answer."""
_NESTED = (dict, list)
_PIECE = 2**18


class NoAnswer(Exception):
    """No connection, or it broke. Unlike the client's own exceptions, it keeps nothing of the request alive."""


class AnswerRefused(Exception):
    """The answer is not read: it is too large, or packed in a way that cannot be read."""


class Redirected(AnswerRefused):
    """The endpoint names another address. Following it would carry the whole conversation to another host."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer without any known key in it."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


async def post(
    session: ClientSession,
    url: str,
    payload: Mapping[str, Any] | bytes,
    *,
    headers: Mapping[str, str],
    within: ClientTimeout,
    max_bytes: int = MAX_BYTES,
    keyless: bool = False,
) -> Answer:
    """The answer to ``payload``, a value or its JSON. ``keyless``: no key is sent, so none is looked for in a good answer.

    Raises:
        AnswerRefused: the answer is not read.
        NoAnswer, TimeoutError: there is none.
    """
    import aiohttp

    sent = {"Accept-Encoding": "gzip, deflate", "Content-Type": "application/json", **headers}
    body = payload if isinstance(payload, bytes) else write_json(payload)
    kept = connections.beside.get(session)
    target = connections.target(url, sent, through_proxies=session.trust_env) if kept is not None else None
    try:
        if kept is not None and target is not None:
            async with asyncio.timeout(within.total):
                reply = await kept.post(target, sent, body, connect_within=within.sock_connect, max_bytes=max_bytes)
                if 300 <= reply.status < 400:
                    _refuse_redirect(reply.status, reply.headers)
                if reply.headers.get("Content-Encoding"):
                    whole = await _all_of(_unpacked(_in_pieces(reply.body), reply.headers), max_bytes)
                    reply = reply._replace(body=whole)
        else:
            async with session.post(url, data=body, headers=sent, timeout=within, allow_redirects=False) as response:
                if 300 <= response.status < 400:
                    _refuse_redirect(response.status, response.headers)
                pieces = _unpacked(response.content.iter_chunked(_PIECE), response.headers)
                reply = connections.Reply(response.status, response.headers, await _all_of(pieces, max_bytes))
    except connections.TooLong as error:
        raise AnswerRefused(str(error)) from None
    except (aiohttp.ClientError, OSError, UnicodeError) as error:  # the last: a host that no name server could know
        late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ConnectionTimeoutError)
        problem = f"{type(error).__name__}: {error}"
        tracebacks.forget(error)
    else:
        await take_turn()
        good = 200 <= reply.status < 300
        if good and keyless:
            return Answer(*reply)
        text = reply.body.decode("utf-8", "replace")
        return Answer(reply.status, reply.headers, (redact_words(text) if good else redact(text)).encode())
    if late:
        raise TimeoutError
    raise NoAnswer(problem)


def _refuse_redirect(status: int, headers: Mapping[str, str]) -> None:
    if "Location" in headers:
        raise Redirected(
            f"HTTP {status}: it redirects to {_host(headers['Location'])}. Redirects are not followed, because the "
            "conversation would go to another host; if that host is right, name it as the address"
        )


async def _all_of(pieces: AsyncIterator[bytes], max_bytes: int) -> bytes:
    raw = bytearray()
    async for piece in pieces:
        raw += piece
        if len(raw) > max_bytes:
            raise AnswerRefused(f"the answer is longer than {max_bytes / 2**20:.0f} MiB")
    return bytes(raw)


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), _PIECE):
        yield body[begin : begin + _PIECE]


def write_json(value: object) -> bytes:
    """``value`` as JSON. What orjson refuses (half a surrogate pair, huge numbers), Python's own writer writes."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value).encode()


def read_json(text: str | bytes, *, max_pieces: int | None = MAX_PIECES) -> object:
    """The value of a JSON text from outside. ``max_pieces`` None: as many as fit into its bytes.

    Raises:
        ValueError: it is not JSON, or it is nested more deeply, or has more pieces, than any answer.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if max_pieces is not None and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > max_pieces:
        raise ValueError(f"it has more than {max_pieces:,} pieces")
    try:
        value: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _read_loosely(text if isinstance(text, str) else text.decode("utf-8", "replace"))
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        check_depth(value)
    return value


def _read_loosely(text: str) -> object:
    """What Python reads and orjson refuses: NaN, half a surrogate pair, a broken UTF-8 sequence."""
    try:
        value: object = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def check_depth(value: object) -> None:
    """Raises ValueError if a JSON value is nested more deeply than `MAX_DEPTH`: much of Python walks values by recursion."""
    level = [value] if isinstance(value, _NESTED) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, _NESTED)
        ]
    if level:
        raise ValueError("it is nested too deeply")


async def _unpacked(pieces: AsyncIterator[bytes], headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The body in pieces of bounded size, unpacked, with a pause for the event loop after each."""
    packing = headers.get("Content-Encoding", "").strip().lower()
    if packing in ("", "identity"):
        async for piece in pieces:
            yield piece
        return
    if packing not in ("gzip", "x-gzip", "deflate"):
        raise AnswerRefused(f"the answer is packed as {packing[:40]!r}, which was not asked for")
    unpack: zlib._Decompress | None = None
    try:
        async for packed in pieces:
            if unpack is None:  # some servers send "deflate" without zlib's header
                bare = packing == "deflate" and packed[0] & 0x0F != 8
                unpack = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
            rest = packed
            while rest:
                yield unpack.decompress(rest, _PIECE)
                rest = unpack.unconsumed_tail
                await asyncio.sleep(0)
        while unpack is not None and (piece := unpack.decompress(b"", _PIECE)):
            yield piece
    except zlib.error as error:
        raise AnswerRefused(f"the answer cannot be unpacked: {error}") from None


def _host(location: str) -> str:
    """Scheme and host of ``location``, without what else it may hold."""
    try:
        parts = urlsplit(location)
        return (
            f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else "itself"
        )
    except ValueError:
        return "an address that cannot be read"
