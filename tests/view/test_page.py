"""The viewer in a real browser: from a curve to a token, while it grows, against hostile text, on a phone, in the dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.evaluation.statistics.intervals import share_interval
from tau2_slime.inspector.curves import Curves
from tau2_slime.view.page import write_page
from tau2_slime.view.runs import Runs
from tests.inspector.browser import EVIL, Page, assert_harmless, browse, browsing, chromium
from tests.view.runs_on_disk import lines, samples, write_dump, write_lines
from tests.view.test_server import Viewer


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of one group of four; at each one more attempt is solved."""
    folder = tmp_path_factory.mktemp("dumps")
    for step in range(3):
        made = samples(step=step, version=str(step))
        solved = next(sample for sample in made if sample["metadata"]["tau2"]["official_reward"] == 1)
        for place in range(step + 1):
            index = made[place]["index"]
            made[place] = {**json.loads(json.dumps(solved)), "index": index}
        for place in range(step + 1, 4):
            made[place]["metadata"]["tau2"]["official_reward"] = 0.0
        write_dump(folder / "rollout_data" / f"{step}.pt", made)
    return folder


@pytest.fixture(scope="module")
def file(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as one file."""
    return written(dumps, tmp_path_factory.mktemp("page") / "all.html")


def written(folder: Path, file: Path, *, replay: bool = True) -> Path:
    runs = Runs([folder])
    runs.refresh()
    write_page(
        file,
        (runs.open(number) for number in range(len(runs.rows))),
        title=runs.title,
        rows=runs.rows,
        curves=Curves(share_interval),
        world=replay,
        unreadable=runs.problems,
    )
    return file


SHOWN = "[...document.querySelectorAll('#list .episode')].map((b) => b.title.split(' ')[0])"
FITS = "document.documentElement.scrollWidth <= innerWidth"


def test_from_a_point_of_a_curve_to_a_group_to_an_episode_to_a_token(file: Path, tmp_path: Path) -> None:
    async def act(page: Page) -> dict[str, Any]:
        seen: dict[str, Any] = {"charts": await page.run("document.querySelectorAll('figure svg').length")}
        await page.run("document.querySelector('figure svg').focus()")
        for key in ("ArrowRight", "ArrowRight"):  # a curve is walked along by its keys, too
            await page.press(key)
        seen["said"] = await page.run("document.querySelector('figcaption').textContent")
        at = await page.run(
            "(() => { const c = document.querySelectorAll('figure svg circle')[1].getBoundingClientRect();"
            " return [c.x + c.width / 2, c.y + c.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await page.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)
        seen["point"] = await page.run("document.getElementById('point').textContent")
        seen["list"] = await page.run(SHOWN)
        seen["group"] = await page.run("document.querySelector('.group').textContent")
        await page.click("#list .episode", 1)
        await page.until("document.querySelector('.message.assistant .expand')")
        await page.click(".message.assistant .expand")
        await page.until("document.querySelector('.tokens .t')")
        seen["token"] = await page.run("document.querySelector('.tokens .t').title")
        seen["weights"] = await page.run("document.querySelector('.message.assistant:has(.tokens)').textContent")
        return seen

    seen = browse(file, tmp_path, act)
    assert seen["charts"] >= 6
    assert "step 1: 0.500" in seen["said"] and "4 episodes" in seen["said"]
    assert seen["point"].startswith("step 1 · train")
    assert seen["list"] == ["1:4", "1:5", "1:6", "1:7"]
    assert "group 1" in seen["group"] and "2 of 4 solved" in seen["group"]
    assert "sampled" in seen["token"] and "log-prob" in seen["token"]
    assert "weights 1" in seen["weights"]


def test_keys_search_and_failed_only(dumps: Path, file: Path, tmp_path: Path) -> None:
    async def press(page: Page, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await page.send("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    async def act(page: Page) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        await press(page, "f")
        seen["failed"] = await page.run(SHOWN)
        await press(page, "j")
        await press(page, "j")
        await page.until("document.querySelector('#detail h2')?.textContent.startsWith('0:2')")
        seen["decisive"] = await page.run("document.querySelectorAll('#detail .message.decisive').length")
        seen["gold"] = await page.run("document.querySelectorAll('#detail .divergence').length")
        await press(page, "b")
        await page.until("document.querySelector('.first-difference')")
        seen["columns"] = await page.run("document.querySelectorAll('article').length")
        await press(page, "f")
        await press(page, "/")
        await page.send("Input.insertText", text="NEVER said")
        await page.until("document.querySelectorAll('#list .episode').length === 0")
        await page.run("document.getElementById('search').select()")
        await page.send("Input.insertText", text="IMPORTANT meeting")
        await page.until("document.querySelectorAll('#list .episode').length > 0")
        seen["found"] = await page.run("visible.map((n) => rows[n].name)")
        return seen

    seen = browse(file, tmp_path, act)
    assert seen["failed"] == ["0:1", "0:2", "0:3", "1:6", "1:7", "2:11"]
    assert seen["decisive"] == 1
    assert seen["gold"] == 1
    assert seen["columns"] == 2
    runs = Runs([dumps])
    runs.refresh()
    said = [
        row.name
        for number, row in enumerate(runs.rows)
        if "important meeting" in json.dumps(runs.open(number).messages).lower()
    ]
    assert seen["found"] == said != []


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone(file: Path, tmp_path: Path, dark: bool) -> None:
    async def act(page: Page) -> list[bool]:
        fits = [await page.run(FITS)]
        await page.run("openCurves()")
        fits.append(await page.run(FITS))
        for opened in ("openEpisode(3)", "openEpisode(3, 2)"):
            await page.run(opened)
            await page.drawn()
            fits.append(await page.run(FITS))
        fits.append(await page.run("getComputedStyle(document.body).colorScheme.includes('dark')"))
        return fits

    assert browse(file, tmp_path, act, width=390, height=844, dark=dark) == [True] * 5


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path) -> None:
    """Scripts, handlers, addresses that are scripts, marks that turn the text around, and a very long word."""
    turned, long = "safe\u202egnp.exe", "x" * 300_000
    (one, *_) = lines()
    for place, text in enumerate((EVIL, f"javascript:window.owned=4 {turned}", long)):
        one["messages"][place]["content"] = text
        one["messages"][place].pop("tool_calls", None)
    one |= {
        "index": f"{EVIL}{turned}",
        "user_model": EVIL,
        "termination": EVIL,
        "blame": EVIL,
        "detail": EVIL,
        "task_id": EVIL,
    }
    write_lines(tmp_path / "run" / "trajectories.jsonl", [one, {**one, "index": "other"}])
    file = written(tmp_path / "run", tmp_path / "evil.html")
    assert "window.owned" not in file.read_text()

    async def act(page: Page) -> dict[str, Any]:
        await page.run("openEpisode(0, 1)")
        await assert_harmless(page, "body > :not(script)")
        await page.run("openEpisode(0)")
        texts = await assert_harmless(page, "body > :not(script)")
        await page.run("openCurves()")
        await assert_harmless(page, "body > :not(script)")
        everything = await page.run("document.body.innerText + document.title")
        await page.run("openEpisode(0)")
        before = await page.run("document.querySelectorAll('.message')[3].textContent.length")
        await page.click(".message .text button")
        after = await page.run("document.querySelectorAll('.message')[3].textContent.length")
        return {"texts": texts, "everything": everything, "lengths": (before, after), "fits": await page.run(FITS)}

    seen = browse(file, tmp_path, act)
    assert EVIL in seen["texts"]
    assert "safe\\u202egnp.exe" in seen["texts"][1]
    assert "\u202e" not in seen["everything"].replace(f"{EVIL}{turned}", "")
    assert seen["lengths"][0] < 30_000 < 300_000 <= seen["lengths"][1]
    assert seen["fits"]


async def test_a_page_follows_its_server_and_asks_nobody_else(tmp_path: Path) -> None:
    chromium()
    folder = tmp_path / "run"
    write_dump(folder / "0.pt", samples(version="0"))
    viewer = Viewer(folder, "--follow", "--no-replay")
    try:
        async with browsing(tmp_path) as page:
            await page.look(1280)
            await page.send("Page.navigate", url=viewer.address)
            await page.until("document.body && document.body.dataset.ready === 'yes'")
            await page.until("rows.length === 4")
            write_dump(folder / "1.pt", samples(step=1, version="1"))
            await page.until("rows.length === 8")
            await page.until("document.querySelectorAll('figure svg circle:not(.cursor)').length >= 2")
            await page.run("openEpisode(5)")
            title = await page.run("document.querySelector('#detail h2').textContent")
            await page.run("(() => { search.value = 'IMPORTANT MEETING'; return find(); })()")
            found = await page.run("visible.length")
            owned = await page.run(
                "(() => { const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
                " document.body.append(s); return window.owned ?? null; })()"
            )
            refused = await page.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
            asked = [e["params"]["request"]["url"] for e in page.told if e["method"] == "Network.requestWillBeSent"]
            viewer.stop()
            await page.until("document.getElementById('live').textContent === 'the server does not answer'")
            thrown = [e for e in page.told if e["method"] == "Runtime.exceptionThrown"]
    finally:
        viewer.process.kill()
    assert title.startswith("1:5")
    assert found > 0
    assert (owned, refused) == (None, "refused")
    assert {url for url in asked if not url.startswith((viewer.address, "about:"))} <= {"http://127.0.0.1:9/"}
    assert thrown == []


def test_thousands_of_rows_are_a_screenful_of_elements(tmp_path: Path) -> None:
    (one, *_) = lines()
    one.pop("ledger")
    write_lines(tmp_path / "run" / "trajectories.jsonl", [{**one, "index": number} for number in range(3000)])
    file = written(tmp_path / "run", tmp_path / "many.html", replay=False)

    async def act(page: Page) -> dict[str, Any]:
        seen: dict[str, Any] = {"top": await page.run("document.querySelectorAll('#list .episode').length")}
        await page.run("(() => { list.scrollTop = 1e9; })()")
        await page.drawn()
        seen["bottom"] = await page.run(SHOWN)
        seen["heights"] = await page.run("[ROW, document.querySelector('#list .episode').offsetHeight]")
        await page.run("openEpisode(2999)")
        seen["title"] = await page.run("document.querySelector('#detail h2').textContent")
        return seen

    seen = browse(file, tmp_path, act)
    assert 8 < seen["top"] < 60
    assert seen["bottom"][-1] == "2999"
    assert seen["heights"][0] == seen["heights"][1]
    assert seen["title"].startswith("2999")
