"""HTTP connections: one pool for each event loop and each kind of endpoint, kept open between calls."""

from __future__ import annotations

from typing import Any

from tau2_slime.offload import PerLoop


def _new(*, through_proxies: bool) -> Any:
    import aiohttp

    # No limit: semaphores bound what is under way.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    return aiohttp.ClientSession(connector=connector, trust_env=through_proxies)


_inside: PerLoop[Any] = PerLoop(lambda: _new(through_proxies=False))
_outside: PerLoop[Any] = PerLoop(lambda: _new(through_proxies=True))


def inside() -> Any:
    """This loop's aiohttp session for the cluster's own servers: the environment's proxies are not for them."""
    return _inside.get()


def outside() -> Any:
    """This loop's aiohttp session for endpoints anywhere, through the environment's proxies."""
    return _outside.get()


async def close_sessions() -> None:
    """Close this event loop's connections (stand-alone tools and tests; slime's loop lives as long as it does)."""
    for kind in (_inside, _outside):
        session = kind.pop()
        if session is not None:
            await session.close()
