"""The address of a router: read from a URL, and asked whether anything listens there."""

from __future__ import annotations

import asyncio
from urllib.parse import urlparse

from tau2_slime.errors import ConfigError

PATIENCE = 10
"""Seconds to wait for a connection."""


def address(url: str) -> tuple[str, int]:
    """Host and port of ``url``, as slime's arguments have them: an IPv6 address keeps its brackets.

    >>> address("http://10.0.0.7:30000"), address("http://[fd00::7]:30000")
    (('10.0.0.7', 30000), ('[fd00::7]', 30000))

    Raises:
        ConfigError: ``url`` is not http://host:port.
    """
    parsed = urlparse(url)
    if parsed.scheme != "http" or not parsed.hostname or not parsed.port:
        raise ConfigError(f"--router {url!r}: give http://host:port")
    return f"[{parsed.hostname}]" if ":" in parsed.hostname else parsed.hostname, parsed.port


async def answers(host: str, port: int) -> None:
    """Nothing, if something listens at ``host:port``.

    Raises:
        ConfigError: nothing does.
    """
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host.strip("[]"), port), PATIENCE)
    except (OSError, TimeoutError) as error:
        raise ConfigError(
            f"nothing answers at http://{host}:{port} ({error or 'time-out'}); is the router there?"
        ) from error
    writer.close()
