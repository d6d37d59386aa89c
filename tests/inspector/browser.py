"""A real headless Chromium, driven by its own DevTools protocol: clicks, keys, what is on the screen, pictures of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
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

    async def open(self, file: Path, fragment: str = "") -> None:
        """Load ``file`` and wait until the page says that it is ready, and is drawn: Chromium drops earlier clicks."""
        await self.send("Page.navigate", url=file.as_uri() + fragment)
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

    async def settled(self) -> None:
        """Wait until images that the page asked for before have failed: an ``onerror`` would have run by then."""
        await self.run(
            "new Promise((done) => { const i = new Image(); i.onerror = i.onload = done; i.src = 'file:///x'; })"
        )

    async def until(self, condition: str, seconds: float = 120) -> None:
        for _ in range(int(seconds / 0.05)):
            if await self.run(f"Boolean({condition})"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    async def click(self, selector: str, nth: int = 0) -> None:
        """A real click in the middle of an element, once what was scrolled to is drawn."""
        element = f"document.querySelectorAll({json.dumps(selector)})[{nth}]"
        await self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        await self.drawn()
        at = await self.run(
            f"(() => {{ const r = {element}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=27)

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
        *(
            chromium(),
            "--headless=new",
            "--hide-scrollbars",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ),
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


def browse(file: Path, folder: Path, act: Callable[[Page], Awaitable[Any]], *, fragment: str = "", **look: Any) -> Any:
    """What ``act`` returns after ``file`` was opened in a browser of its own; no script of the page may fail meanwhile."""

    async def play() -> Any:
        async with browsing(folder) as page:
            await page.look(**{"width": 1280, **look})
            await page.open(file, fragment)
            result = await act(page)
            thrown = [e for e in page.told if e["method"] == "Runtime.exceptionThrown"]
            assert thrown == []
            return result

    chromium()
    return asyncio.run(play())


# ---- the conversation viewer, as the inspector's page and the evaluation's report show it --------------------------------


async def read_tokens(page: Page, message: str) -> list[list[tuple[str, str, str]]]:
    """Open the tokens of every ``message`` (a selector), one after the other, all of them, and close them again.

    Of each token: what is told on hover, its classes, its text.
    """
    out = []
    for number in range(await page.run(f"document.querySelectorAll('{message} .expand').length")):
        await page.click(f"{message} .expand", number)
        await page.until("document.querySelector('.tokens .t')")
        while await page.run("Boolean(document.querySelector('.tokens button'))"):
            await page.click(".tokens button")
        out.append(
            await page.run(
                "[...document.querySelectorAll('.tokens .t')].map((t) => [t.title, t.className, t.textContent])"
            )
        )
        await page.click(f"{message} .expand", number)
        await page.until("!document.querySelector('.tokens')")
    return out


def assert_turns_are_the_ledgers(turns: list[list[tuple[str, str, str]]], trajectory: Any, language: Any) -> None:
    """Ids, positions, masks, log-probs, junctions and text of every sampled turn are those of the file."""
    ledger = trajectory.ledger
    assert len(turns) == len(trajectory.turns()) > 0
    for tokens, (*_, last) in zip(turns, trajectory.turns(), strict=True):
        begin = last.stop - len(tokens)
        ids = ledger["tokens"][begin : last.stop]
        assert [int(re.match(r"id (\d+)", title)[1]) for title, _, _ in tokens] == ids
        for position, (title, classes, _) in enumerate(tokens, begin):
            response = position - trajectory.prompt_length
            assert f"position {position} · sampled · mask {ledger['loss_mask'][response]}" in title
            shown = float(re.search(r"log-prob (\S+)", title)[1])
            assert shown == pytest.approx(ledger["log_probs"][response], abs=1e-4)
            assert ("in" in classes.split()) == (ledger["loss_mask"][response] == 1)
            assert ("junction" in classes.split()) == (position == last.stop - 1)
        text = "".join(text for _, _, text in tokens).replace("⏎\n", "\n").replace("⇥", "\t")
        assert text == language.delta.template.decode(ids)


EVIL = (
    "</script><script>window.owned=1</script><!--<img src=x onerror='window.owned=2'>"
    "\u2028\"'{{7*7}}<svg onload=window.owned=3>"
)
"""What a model could say to run in its reader's browser."""


def poisoned(value: Any, *, keep: frozenset[str] = frozenset()) -> Any:
    """``value`` with hostile text in the place of every text, names of fields not in ``keep`` included."""
    if isinstance(value, dict):
        return {k: v if k in keep else poisoned(v, keep=keep) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, keep=keep) for item in value]
    return EVIL if isinstance(value, str) else value


async def assert_harmless(page: Page, inside: str) -> list[str]:
    """Nothing hostile ran or became an element of ``inside``; returns the texts of the messages."""
    await page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    await page.run("document.querySelectorAll('.expand').forEach((button) => button.click())")
    await page.settled()
    assert await page.run("window.owned ?? null") is None
    assert (
        await page.run(
            f"document.querySelectorAll('{inside} :is(img, script, iframe, object, a[href^=javascript])').length"
        )
        == 0
    )
    assert await page.run("document.querySelectorAll('svg[onload]').length") == 0
    return await page.run("[...document.querySelectorAll('.message .text')].map((t) => t.textContent)")
