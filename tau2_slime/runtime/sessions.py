"""HTTP sessions: one for each event loop, which ends with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from tau2_slime.runtime import connections
from tau2_slime.runtime.loops import PerLoop, take_turn

if TYPE_CHECKING:
    from aiohttp import ClientSession


class _Sessions:
    """One aiohttp session for each event loop.

    Each is held by an asynchronous generator, because ``asyncio.run`` closes the generators of its loop when it ends.
    """

    def __init__(self, *, through_proxies: bool) -> None:
        self._through_proxies = through_proxies
        self._open: PerLoop[tuple[AsyncGenerator[ClientSession, None], ClientSession]] = PerLoop(self._start)

    def get(self) -> ClientSession:
        """The running loop's session, open until that loop ends."""
        return self._open.get()[1]

    def _start(self) -> tuple[AsyncGenerator[ClientSession, None], ClientSession]:
        generator = self._until_the_end()
        try:
            generator.__anext__().send(None)
        except StopIteration as yielded:
            return generator, yielded.value
        raise AssertionError("the generator awaited before it yielded")

    async def _until_the_end(self) -> AsyncGenerator[ClientSession, None]:
        import aiohttp

        # No limit here: the callers' semaphores limit the requests in flight.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        # `runtime.http` unpacks answers itself, piece by piece.
        session = aiohttp.ClientSession(
            connector=connector,
            trust_env=self._through_proxies,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        kept = connections.beside[session] = connections.Connections(take_turn)
        try:
            yield session
        finally:
            self._open.pop()
            kept.close()
            await session.close()


inside = _Sessions(through_proxies=False).get
"""This loop's aiohttp session for the cluster's own servers, without the environment's proxies."""
outside = _Sessions(through_proxies=True).get
"""This loop's aiohttp session for endpoints anywhere, through the environment's proxies."""
