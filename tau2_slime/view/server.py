"""The viewer's server: 127.0.0.1 only, reads only, and says nothing to whoever does not know the token in its address."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.inspector.packing import as_json
from tau2_slime.inspector.page import Report, live_page, report_part
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


async def serve(
    reader: Reader, *, port: int = 0, started: Callable[[str], None], report: Callable[[], Report] | None = None
) -> None:
    """Serve ``reader`` until SIGINT or SIGTERM. ``started`` is told the address, token included.

    ``report``: makes the report of an evaluation, each time that a page asks; None: there is none.

    Raises:
        ConfigError: the port cannot be used.
    """
    from aiohttp import web

    token = secrets.token_urlsafe(16)
    runner = web.AppRunner(application(reader, token, report), access_log=None)
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


def application(reader: Reader, token: str, report: Callable[[], Report] | None = None) -> web.Application:
    """Five answers under ``/<token>/``: the page, ``rows``, ``episode/N``, ``search``, ``report``. All else is 404."""
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
        except ConfigError as error:
            return _error(409, str(error))
        except (ValueError, IndexError):
            return _error(404, "there is no such episode")

    page = live_page(reader.runs.title, reports=report is not None)

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

    async def measured(request: web.Request) -> web.StreamResponse:
        if report is None:
            return _error(404, "there is no report: these are not the episodes of one evaluation")
        return _json(as_json({"html": await asyncio.to_thread(lambda: report_part(report()))}))

    app = web.Application(middlewares=[guarded])
    answers = {"": index, "rows": rows, "episode/{number}": episode, "search": search, "report": measured}
    for path, answer in answers.items():
        app.router.add_get(f"/{token}/{path}", answer)
    return app


def _json(text: str) -> web.Response:
    from aiohttp import web

    body = text.encode("utf-8", "replace")
    return web.Response(body=body, content_type="application/json", charset="utf-8", headers=_HEADERS)


def _error(status: int, text: str) -> web.Response:
    from aiohttp import web

    return web.Response(status=status, text=as_json({"error": text}), content_type="application/json", headers=_HEADERS)


def run(
    reader: Reader, *, port: int = 0, started: Callable[[str], None], report: Callable[[], Report] | None = None
) -> None:
    """`serve` from a program without an event loop; the reader's thread begins with it and ends with it."""

    def begun(address: str) -> None:
        reader.start()
        started(address)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(reader, port=port, started=begun, report=report))
    finally:
        reader.stop()
