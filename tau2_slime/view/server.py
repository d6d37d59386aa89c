"""The viewer's server: 127.0.0.1 only, reads only, and says nothing to whoever does not know the token in its address."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.inspector.pages import as_json
from tau2_slime.view.page import live_page
from tau2_slime.view.reader import Reader
from tau2_slime.view.runs import Vanished

if TYPE_CHECKING:
    from aiohttp import web

HOST = "127.0.0.1"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Beside the policy that the page itself carries."""


async def serve(reader: Reader, *, port: int = 0, started: Callable[[str], None]) -> None:
    """Serve ``reader`` until SIGINT or SIGTERM. ``started`` is told the address, token included.

    Raises:
        ConfigError: the port cannot be used.
    """
    from aiohttp import web

    token = secrets.token_urlsafe(16)
    runner = web.AppRunner(application(reader, token), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, port, shutdown_timeout=1.0)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"--port {port}: {HOST}:{port} cannot be used ({error.strerror or error}); leave it out for a free one"
            ) from error
        chosen = runner.addresses[0][1]
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, over.set)
        started(f"http://{HOST}:{chosen}/{token}/")
        await over.wait()
    finally:
        await runner.cleanup()


def application(reader: Reader, token: str) -> web.Application:
    """Four answers under ``/<token>/``: the page, ``rows``, ``episode/N``, ``search``. Everything else is 404."""
    from aiohttp import web

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.path.split("/")[1] if request.path.count("/") >= 2 else ""
        if not secrets.compare_digest(given.encode(), token.encode()):
            return _error(404, "not found: the address needs the token that `tau2-slime view` has printed")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _error(error.status, error.reason)
        except Vanished as error:
            return _error(410, str(error))
        except (ValueError, IndexError):
            return _error(404, "there is no such episode")

    page = live_page(reader.runs.title)

    async def index(request: web.Request) -> web.StreamResponse:
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def rows(request: web.Request) -> web.StreamResponse:
        given = [
            int(request.query.get(name, default))
            for name, default in (("from", 0), ("generation", -1), ("version", -1))
        ]
        return _json(await asyncio.to_thread(lambda: as_json(reader.news(*given))))

    async def episode(request: web.Request) -> web.StreamResponse:
        number, generation = int(request.match_info["number"]), int(request.query.get("generation", -1))
        return _json(await asyncio.to_thread(lambda: as_json(reader.episode(number, generation))))

    async def search(request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(reader.search, request.query.get("q", ""))
        return _json(as_json({"found": found}))

    app = web.Application(middlewares=[guarded])
    for path, answer in (("", index), ("rows", rows), ("episode/{number}", episode), ("search", search)):
        app.router.add_get(f"/{token}/{path}", answer)
    return app


def _json(text: str) -> web.Response:
    from aiohttp import web

    body = text.encode("utf-8", "replace")
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=_HEADERS)


def _error(status: int, text: str) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text=as_json({"error": text}), content_type="application/json", headers=_HEADERS)


def run(reader: Reader, *, port: int = 0, started: Callable[[str], None]) -> None:
    """`serve` from a program without an event loop; the reader's thread begins with it and ends with it."""

    async def both() -> None:
        await serve(reader, port=port, started=lambda address: (reader.start(), started(address))[1])

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(both())
    finally:
        reader.stop()
