"""The page in a real browser: filters, tokens, two attempts, the database, and nothing that a model wrote ever runs."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.inspector.load import load
from tau2_slime.inspector.page import write_page
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.inspector.words import language_of
from tests.inspector.browser import Page, browsing, chromium
from tests.test_cli import tau2_slime

EVIL = "</script><script>window.owned=1</script><img src=x onerror='window.owned=2'><svg onload=window.owned=3>"


@pytest.fixture(scope="module")
def page_file(rollout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "all.html"
    done = tau2_slime("inspect", str(rollout), "--html", str(out))
    assert done.returncode == 0, done.stderr
    assert "8 episodes" in done.stdout
    return out


@pytest.fixture(scope="module")
def episodes(rollout: Path) -> list[Trajectory]:
    return load(rollout).trajectories


def browse(file: Path, folder: Path, act: Callable[[Page], Awaitable[Any]], **look: Any) -> Any:
    async def play() -> Any:
        async with browsing(folder) as page:
            await page.look(**{"width": 1280, **look})
            await page.open(file)
            result = await act(page)
            thrown = [e for e in page.told if e["method"] == "Runtime.exceptionThrown"]
            assert thrown == []
            return result

    chromium()
    return asyncio.run(play())


async def choose(page: Page, number: int) -> None:
    """Click an episode of the list, and wait until it is the one that is shown."""
    await page.click(f".episode:nth-of-type({number + 1})")
    await page.until(
        f"document.querySelectorAll('.episode')[{number}].title === document.querySelector('h2')?.textContent"
        ".replace(/ · (?=[^·]*$)/, ' ')"
    )


SHOWN = "[...document.querySelectorAll('.episode:not([hidden])')].map((b) => b.title)"


def titles(episodes: list[Trajectory]) -> list[str]:
    return [f"{one.name} · {one.domain} {one.task_id}" for one in episodes]


def test_filters_keep_what_they_say(page_file: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    async def act(page: Page) -> dict[str, Any]:
        seen = {"all": await page.run(SHOWN)}
        for name, value in (
            ("domain", "retail"),
            ("reward", "1"),
            ("reward", "0"),
            ("errors", "yes"),
            ("blame", "agent"),
        ):
            await page.choose(f"#filter-{name}", value)
            seen[f"{name}={value}"] = await page.run(SHOWN)
            await page.choose(f"#filter-{name}", "")
        await page.choose("#filter-user", "scripted")
        seen["user"] = await page.run(SHOWN)
        await page.type("#filter-task", "update_")
        seen["task"] = await page.run(SHOWN)
        seen["count"] = await page.run("document.getElementById('count').textContent")
        return seen

    seen = browse(page_file, tmp_path, act)
    assert seen["all"] == seen["user"] == titles(episodes)
    assert seen["domain=retail"] == titles([e for e in episodes if e.domain == "retail"])
    assert seen["reward=1"] == titles([e for e in episodes if e.reward == 1 and not e.excluded])
    assert seen["reward=0"] == titles([e for e in episodes if e.reward == 0 and not e.excluded])
    assert seen["errors=yes"] == titles([e for e in episodes if e.tool_errors()])
    assert seen["blame=agent"] == titles([e for e in episodes if e.blame == "agent"])
    assert seen["task"] == titles([e for e in episodes if "update_" in e.task_id])
    assert seen["count"].startswith(f"{len(seen['task'])} of 8 episodes")


def test_a_message_expands_to_its_own_tokens(page_file: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    number = next(i for i, e in enumerate(episodes) if len(e.turns()) > 1 and not e.excluded)
    one = episodes[number]

    async def act(page: Page) -> Any:
        await choose(page, number)
        marked = {}
        for what in ("assistant", "prompt"):
            before = await page.run("document.querySelectorAll('.t[title]').length")
            await page.click(f".message.{what} .expand")
            await page.until(f"document.querySelectorAll('.t[title]').length > {before}")
            marked[what] = await page.run(
                f"[...document.querySelectorAll('.message.{what} .t[title]')]"
                ".map((t) => [t.title, t.className, t.textContent])"
            )
        await page.click(".message.assistant .expand")
        marked["closed"] = await page.run("document.querySelectorAll('.message.assistant .t').length")
        marked["heads"] = await page.run("[...document.querySelectorAll('.message .head')].map((h) => h.textContent)")
        marked["open"] = [await page.run("document.querySelectorAll('.t[title]').length")]
        await page.click(f".episode:nth-of-type({number + 1})")
        await page.run("new Promise((later) => setTimeout(later, 200))")
        marked["open"].append(await page.run("document.querySelectorAll('.t[title]').length"))
        return marked

    seen = browse(page_file, tmp_path, act)
    turn = one.turns()[0][0]
    ledger = one.ledger or {}
    ids = list(ledger["tokens"][turn.start : turn.stop])
    assert [int(re.match(r"id (\d+)", title)[1]) for title, _, _ in seen["assistant"]] == ids  # type: ignore[index]
    for k, (title, classes, _) in enumerate(seen["assistant"]):
        value = ledger["log_probs"][turn.start - one.prompt_length + k]
        assert f"position {turn.start + k} · sampled · mask 1" in title
        assert float(re.search(r"log-prob (\S+)", title)[1]) == pytest.approx(value, abs=1e-4)  # type: ignore[index]
        assert "in" in classes.split()
    assert ["junction" in classes for _, classes, _ in seen["assistant"]] == [False] * (len(ids) - 1) + [True]
    assert all(" in" not in classes for _, classes, _ in seen["prompt"])
    language = language_of(load(Path(one.where)) if Path(one.where).exists() else _embedded(), None)
    assert language is not None
    text = "".join(text for _, _, text in seen["assistant"]).replace("⏎\n", "\n")
    assert text == language.delta.template.decode(ids)
    assert seen["closed"] == 0
    assert seen["open"] == [len(seen["prompt"])] * 2, "choosing the open episode again must not close its messages"
    assert any("weights" in head and "finish stop" in head for head in seen["heads"])


def _embedded() -> Any:
    from tau2_slime.inspector.load import Loaded

    return Loaded(embedded=True)


def test_two_attempts_stand_side_by_side(page_file: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    async def act(page: Page) -> Any:
        await choose(page, 0)
        await page.choose("#compare", "1")
        await page.until("document.querySelectorAll('article').length === 2")
        return await page.run(
            "[...document.querySelectorAll('article')]"
            ".map((a) => [a.querySelector('h2').textContent, a.getBoundingClientRect().x])"
        )

    (first, x1), (second, x2) = browse(page_file, tmp_path, act)
    assert first.startswith("0 ·")
    assert second.startswith("1 ·")
    assert episodes[0].task_id in first
    assert episodes[1].task_id in second
    assert x2 > x1 + 200


def test_the_database_shows_what_a_failure_did_not_do(
    page_file: Path, episodes: list[Trajectory], tmp_path: Path
) -> None:
    wrong = [i for i, e in enumerate(episodes) if (e.reward_info.get("db_check") or {}).get("db_match") is False]
    right = [i for i, e in enumerate(episodes) if (e.reward_info.get("db_check") or {}).get("db_match") is True]

    async def act(page: Page) -> Any:
        seen = {}
        for number in wrong + right:
            await page.run(f"open({number})")
            seen[number] = await page.run("document.querySelectorAll('#wrong tbody tr').length")
        return seen

    seen = browse(page_file, tmp_path, act)
    assert right
    assert all(seen[number] > 0 for number in wrong)
    assert all(seen[number] == 0 for number in right)


def test_nothing_that_was_said_is_executed(episodes: list[Trajectory], tmp_path: Path) -> None:
    one = copy.deepcopy(episodes[0])
    user = next(m for m in one.messages if m["role"] == "user")
    user["content"] = EVIL
    one.messages[-1]["content"] = EVIL
    one.task_id = one.domain = one.user_model = one.detail = one.name = EVIL
    one.reward_info = {"reward_breakdown": {EVIL: 1.0}, "info": {EVIL: EVIL}}
    one.telemetry = {EVIL: 1.0}
    file = tmp_path / "evil.html"
    write_page(file, [one], title=EVIL, unreadable=[EVIL])
    markup = file.read_text()
    assert EVIL not in markup
    assert markup.count("window.owned=1") == 1, "the title, escaped; everything else is packed"

    async def act(page: Page) -> Any:
        await choose(page, 0)
        await page.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        await asyncio.sleep(0.3)
        return await page.run(
            "[window.owned ?? null, document.querySelectorAll('#app img, #app svg, #app script').length,"
            " [...document.querySelectorAll('.text')].map((t) => t.textContent), document.title]"
        )

    owned, elements, texts, title = browse(file, tmp_path, act)
    assert owned is None
    assert elements == 0
    assert EVIL in texts
    assert EVIL in title


def test_even_a_script_that_got_in_would_not_run(page_file: Path, tmp_path: Path) -> None:
    """The content security policy, tried: an inline script, an inline handler, a request."""

    async def act(page: Page) -> Any:
        await page.run(
            "(() => { const s = document.createElement('script'); s.textContent = 'window.owned = 1';"
            " document.body.append(s); const d = document.createElement('div');"
            " d.innerHTML = `<img src=x onerror='window.owned = 2'>`;"
            " document.body.append(d); })()"
        )
        fetched = await page.run("fetch('http://127.0.0.1:9/').then(() => 'sent', (e) => 'refused')")
        await asyncio.sleep(0.3)
        asked = [e["params"]["request"]["url"] for e in page.told if e["method"] == "Network.requestWillBeSent"]
        return (
            await page.run("window.owned ?? null"),
            fetched,
            [u for u in asked if not u.startswith(("file:", "blob:", "about:"))],
        )

    owned, fetched, asked = browse(page_file, tmp_path, act)
    assert owned is None
    assert fetched == "refused"
    assert asked == []


@pytest.mark.parametrize(("width", "opened"), [(1280, 1), (400, 0)])
def test_the_first_episode_is_open_where_there_is_room(
    page_file: Path, tmp_path: Path, width: int, opened: int
) -> None:
    async def act(page: Page) -> Any:
        return await page.run("document.querySelectorAll('article').length"), await page.run(SHOWN)

    articles, shown = browse(page_file, tmp_path, act, width=width)
    assert articles == opened
    assert len(shown) == 8


def test_long_names_keep_their_end(episodes: list[Trajectory], tmp_path: Path) -> None:
    name = "[mobile_data_issue]airplane_mode_on|user_abroad_roaming_enabled_off[PERSONA:Hard]"
    file = tmp_path / "telecom.html"
    write_page(file, [replace(episodes[0], task_id=name)], title="x", language=None, world=False)

    async def act(page: Page) -> Any:
        return await page.run(
            "(() => { const b = document.querySelector('.episode'), t = b.querySelector('.last'), "
            "r = (n) => n.getBoundingClientRect().right; return [t.textContent, r(t), r(b)]; })()"
        )

    tail, right, edge = browse(file, tmp_path, act)
    assert name.endswith(tail) and "[PERSONA:Hard]" in tail
    assert right < edge


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(page_file: Path, tmp_path: Path, width: int, dark: bool) -> None:
    async def act(page: Page) -> Any:
        list_fits = await page.run("document.documentElement.scrollWidth <= innerWidth")
        await choose(page, 4)
        await page.run("document.querySelector('.message.assistant .expand, .message.tool .expand').click()")
        fits = await page.run("document.documentElement.scrollWidth <= innerWidth")
        look = await page.run(
            "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; })()"
        )
        return list_fits, fits, look

    list_fits, fits, (paper, ink) = browse(page_file, tmp_path, act, width=width, dark=dark)
    assert list_fits
    assert fits
    assert (_brightness(paper) < _brightness(ink)) == dark


def _brightness(color: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", color)[:3])


def test_a_thousand_episodes_open_on_demand(episodes: list[Trajectory], tmp_path: Path) -> None:
    """What makes it quick: the index and the first episode are unpacked at the start, one more for each that is opened."""
    many = [replace(copy.copy(episodes[i % 8]), name=str(i)) for i in range(1000)]
    file = tmp_path / "many.html"
    size = write_page(file, many, title="many", language=language_of(_embedded(), None), world=False)
    assert size < 25_000_000

    async def act(page: Page) -> Any:
        rows = await page.run("document.querySelectorAll('.episode').length")
        before = await page.run("[...kept.keys()].join()")
        await choose(page, 699)
        ready = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
        return rows, before, await page.run("[...kept.keys()].join()"), await page.run(ready)

    started = time.perf_counter()
    rows, before, after, ready = browse(file, tmp_path, act)
    print(json.dumps({"bytes": size, "dom_ready_ms": round(ready), "seconds": round(time.perf_counter() - started, 2)}))
    assert rows == 1000
    assert before == "e0"
    assert after == "e0,e699"
