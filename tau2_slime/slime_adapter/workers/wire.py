"""How the pool and a worker talk: pickled messages, each behind its length, over one TCP connection.

Nothing is unpickled before both sides have proved that they know the key that the pool gave to this one process. So a
stranger who finds the port can say nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import pickle
import struct
from collections.abc import Callable
from typing import Any

_LENGTH = struct.Struct(">Q")
_NUMBER = struct.Struct(">Q")
_NONCE = 32
_DIGEST = hashlib.sha256().digest_size

Message = tuple[Any, ...]
"""What it is about ("play", "abort", "cancel", "done", "log", "news", "welcome"), then what belongs to it."""


class Channel:
    """One open connection. Its methods belong to the event loop that opened it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def post(self, *message: Any) -> None:
        """Send a message. If the other side is gone, it is lost; `receive` says so."""
        body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        if not self._writer.is_closing():
            self._writer.writelines((_LENGTH.pack(len(body)), body))

    async def receive(self) -> Message:
        """The next message.

        Raises:
            EOFError: the other side is gone (asyncio's IncompleteReadError is one).
            OSError: the connection broke.
        """
        (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
        message: Message = pickle.loads(await self._reader.readexactly(length))
        return message

    def close(self) -> None:
        self._writer.close()


async def admit(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key_of: Callable[[int], bytes | None]
) -> tuple[int, Channel]:
    """The pool's side of the first words: which worker this is, and the channel to it.

    ``key_of``: a worker's number -> its key; None if no such worker is expected.

    Raises:
        PermissionError: it does not know the key.
        EOFError, OSError: it is gone.
    """
    ours = os.urandom(_NONCE)
    writer.write(ours)
    answer = await reader.readexactly(_NUMBER.size + _NONCE + _DIGEST)
    (number,) = _NUMBER.unpack(answer[: _NUMBER.size])
    theirs, proof = answer[_NUMBER.size : -_DIGEST], answer[-_DIGEST:]
    key = key_of(number)
    if key is None or not hmac.compare_digest(proof, _proof(key, b"worker", ours, theirs)):
        raise PermissionError("a connection that is not one of a worker process")
    writer.write(_proof(key, b"pool", ours, theirs))
    return number, Channel(reader, writer)


async def introduce(host: str, port: int, number: int, key: bytes) -> Channel:
    """The worker's side of the first words.

    Raises:
        PermissionError: what listens there is not this worker's pool.
        EOFError, OSError: nothing listens there any more.
    """
    reader, writer = await asyncio.open_connection(host, port)
    theirs, ours = await reader.readexactly(_NONCE), os.urandom(_NONCE)
    writer.write(_NUMBER.pack(number) + ours + _proof(key, b"worker", theirs, ours))
    if not hmac.compare_digest(await reader.readexactly(_DIGEST), _proof(key, b"pool", theirs, ours)):
        raise PermissionError(f"what listens at {host}:{port} is not this worker's pool")
    return Channel(reader, writer)


def _proof(key: bytes, side: bytes, pools_nonce: bytes, workers_nonce: bytes) -> bytes:
    return hmac.digest(key, side + pools_nonce + workers_nonce, "sha256")
