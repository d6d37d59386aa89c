"""A real headless Chromium, driven by its own DevTools protocol: clicks, keys, what is on the screen, pictures of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium() -> str:
    """The browser's path; skips the test if there is none."""
    wanted = [os.environ.get("CHROMIUM", ""), *_NAMES]
    found = next((path for name in wanted if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install one (apt-get install chromium), or name it in CHROMIUM")
    return found


class Page:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.told: list[dict[str, Any]] = []
        """Events: exceptions, console messages, requests, dialogs."""

    async def send(self, method: str, **params: Any) -> Any:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive(timeout=300)).data)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self.told.append(message)

    async def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Size of the window, and whether its user likes it dark."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.send("Emulation.setEmulatedMedia", features=scheme)

    async def open(self, file: Path) -> None:
        """Load ``file`` and wait until the page says that it is ready, and is drawn: Chromium drops earlier clicks."""
        await self.send("Page.navigate", url=file.as_uri())
        await self.until("document.body && document.body.dataset.ready === 'yes'")
        await self.drawn()

    async def drawn(self) -> None:
        """Wait until the page as it is now is on the screen."""
        await self.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(() => drawn(1))))")

    async def run(self, script: str) -> Any:
        """The value of ``script`` in the page."""
        result = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, condition: str, seconds: float = 120) -> None:
        for _ in range(int(seconds / 0.05)):
            if await self.run(f"Boolean({condition})"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    async def click(self, selector: str) -> None:
        """A real click in the middle of the first element that matches, once what was scrolled to is drawn."""
        await self.run(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        await self.drawn()
        at = await self.run(
            f"(() => {{ const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    async def choose(self, selector: str, value: str) -> None:
        """What choosing an option of a select does."""
        await self.run(
            f"(() => {{ const n = document.querySelector({json.dumps(selector)}); n.value = {json.dumps(value)};"
            " n.dispatchEvent(new Event('change')); })()"
        )

    async def type(self, selector: str, text: str) -> None:
        await self.click(selector)
        await self.send("Input.insertText", text=text)

    async def picture(self) -> bytes:
        """A PNG of what is on the screen."""
        data = await self.send("Page.captureScreenshot", format="png")
        return base64.b64decode(data["data"])


@contextlib.asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Page]:
    """A tab of a browser of its own; ``folder`` takes its profile."""
    profile = folder / "profile"
    process = await asyncio.create_subprocess_exec(
        *(chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:
            tab = await _tab(session, port)
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.send(f"{domain}.enable")
                yield page
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _tab(session: aiohttp.ClientSession, port: int) -> dict[str, Any]:
    """The browser listens before it has a tab."""
    for _ in range(1200):
        async with session.get(f"http://127.0.0.1:{port}/json") as reply:
            for one in await reply.json():
                if one["type"] == "page":
                    return dict(one)
        await asyncio.sleep(0.05)
    raise AssertionError("the browser has no tab after a minute")


async def _port(file: Path, process: asyncio.subprocess.Process) -> int:
    for _ in range(1200):
        assert process.returncode is None, "the browser did not start"
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(file.read_text().splitlines()[0])  # noqa: ASYNC240 - one line
        await asyncio.sleep(0.05)
    raise AssertionError("the browser has no debugging port after a minute")
