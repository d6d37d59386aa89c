"""HTTP connections: one pool for each event loop and each kind of endpoint, kept open until that loop ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from tau2_slime.runtime.threads import PerLoop


class _Sessions:
    """One aiohttp session a loop, each in a generator: the end of ``asyncio.run`` ends the generators of its loop."""

    def __init__(self, *, through_proxies: bool) -> None:
        self._through_proxies = through_proxies
        self._open: PerLoop[tuple[AsyncGenerator[Any, None], Any]] = PerLoop(self._start)

    def get(self) -> Any:
        return self._open.get()[1]

    def _start(self) -> tuple[AsyncGenerator[Any, None], Any]:
        generator = self._until_the_end()
        try:
            generator.__anext__().send(None)
        except StopIteration as yielded:
            return generator, yielded.value
        raise AssertionError("the generator awaited before it yielded")

    async def _until_the_end(self) -> AsyncGenerator[Any, None]:
        import aiohttp

        # No limit: semaphores bound what is under way.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        session = aiohttp.ClientSession(connector=connector, trust_env=self._through_proxies)
        try:
            yield session
        finally:
            self._open.pop()
            await session.close()


_inside = _Sessions(through_proxies=False)
_outside = _Sessions(through_proxies=True)


def inside() -> Any:
    """This loop's aiohttp session for the cluster's own servers: the environment's proxies are not for them."""
    return _inside.get()


def outside() -> Any:
    """This loop's aiohttp session for endpoints anywhere, through the environment's proxies."""
    return _outside.get()
