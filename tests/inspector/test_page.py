"""The page in a real browser: filters, tokens, two attempts, the database, and nothing that a model wrote ever runs."""

from __future__ import annotations

import copy
import json
import re
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.view.page import write_page
from tests.inspector.browser import (
    EVIL,
    Page,
    assert_harmless,
    assert_turns_are_the_ledgers,
    browse,
    poisoned,
    read_tokens,
)
from tests.test_cli import tau2_slime


@pytest.fixture(scope="module")
def page_file(rollout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "all.html"
    done = tau2_slime("inspect", str(rollout), "--html", str(out))
    assert done.returncode == 0, done.stderr
    assert "8 episodes" in done.stdout
    return out


@pytest.fixture(scope="module")
def episodes(rollout: Path) -> list[Trajectory]:
    return read_episodes(rollout).trajectories


async def choose(page: Page, number: int) -> None:
    """Click an episode of the list, and wait until it is the one that is shown."""
    await page.click(f".episode:nth-of-type({number + 1})")
    await page.until(
        f"document.querySelectorAll('.episode')[{number}].title === document.querySelector('h2')?.textContent"
    )


SHOWN = "[...document.querySelectorAll('.episode:not([hidden])')].map((b) => b.title)"


def titles(episodes: list[Trajectory]) -> list[str]:
    return [f"{one.name} · {one.domain} task {one.task_id}" for one in episodes]


def test_filters_keep_what_they_say(page_file: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    async def act(page: Page) -> dict[str, Any]:
        seen = {"all": await page.run(SHOWN)}
        for name, value in (
            ("domain", "retail"),
            ("reward", "1"),
            ("reward", "0"),
            ("errors", "with"),
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
    assert seen["errors=with"] == titles([e for e in episodes if e.tool_errors()])
    assert seen["blame=agent"] == titles([e for e in episodes if e.blame == "agent"])
    assert seen["task"] == titles([e for e in episodes if "update_" in e.task_id])
    assert seen["count"].startswith(f"{len(seen['task'])} of 8 episodes")


def test_every_turn_expands_to_its_own_tokens(page_file: Path, episodes: list[Trajectory], tmp_path: Path) -> None:
    number = next(i for i, e in enumerate(episodes) if len(e.turns()) > 1 and e.prompt_length > 1500)
    one = episodes[number]

    async def act(page: Page) -> Any:
        await choose(page, number)
        heads = await page.run("[...document.querySelectorAll('.message .head')].map((h) => h.textContent)")
        return await read_tokens(page, ".message.assistant"), await read_tokens(page, ".message.prompt"), heads

    turns, (prompt,), heads = browse(page_file, tmp_path, act)
    assert_turns_are_the_ledgers(turns, one, language_of(FoundEpisodes(embedded=True), None))
    assert len(prompt) == one.prompt_length
    assert not any("in" in classes.split() for _, classes, _ in prompt)
    assert any("turn 2" in head and "weights" in head and "finish stop" in head for head in heads)


def test_the_open_episode_is_not_drawn_again(page_file: Path, tmp_path: Path) -> None:
    """It would close every message that its reader has opened."""

    async def act(page: Page) -> Any:
        await page.click(".message.assistant .expand")
        await page.until("document.querySelector('.tokens .t')")
        await page.click(".episode")
        await page.run("episode(0).then(() => 1)")
        await page.drawn()
        return await page.run("document.querySelectorAll('.tokens').length")

    assert browse(page_file, tmp_path, act) == 1


def test_tokens_are_coloured_by_log_prob_or_by_mask(page_file: Path, tmp_path: Path) -> None:
    colours = "[...document.querySelectorAll('.tokens .t')].map((t) => getComputedStyle(t).backgroundColor)"

    async def act(page: Page) -> Any:
        await page.click(".message.assistant .expand")
        await page.until("document.querySelector('.tokens .t')")
        by_prob = await page.run(colours)
        await page.choose(".legend select", "by-mask")
        await page.drawn()
        return by_prob, await page.run(colours), await page.run("getComputedStyle(document.body).backgroundColor")

    by_prob, by_mask, paper = browse(page_file, tmp_path, act)
    assert len(set(by_prob)) > 1, "likely and unlikely tokens"
    assert len(set(by_mask)) == 1, "all of them are in the loss"
    assert by_mask[0] not in {paper, *by_prob}


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
            await page.run(f"openEpisode({number})")
            seen[number] = await page.run("document.querySelectorAll('.wrong tbody tr').length")
        return seen

    seen = browse(page_file, tmp_path, act)
    assert right
    assert all(seen[number] > 0 for number in wrong)
    assert all(seen[number] == 0 for number in right)


@pytest.mark.parametrize("keep", [frozenset({"role"}), frozenset()], ids=["roles", "everything"])
def test_nothing_that_was_said_is_executed(episodes: list[Trajectory], tmp_path: Path, keep: frozenset[str]) -> None:
    """Hostile text in every field of an episode and of the page."""
    one = copy.deepcopy(episodes[0])
    for field in fields(one):
        if field.name not in ("ledger", "sample", "counterpart"):
            setattr(one, field.name, poisoned(getattr(one, field.name), keep=keep))
    one.reward_info = {"reward_breakdown": {EVIL: 1.0}, EVIL: {EVIL: [EVIL]}}
    one.telemetry, one.stats = {EVIL: 1.0}, {EVIL: EVIL, "agent_turns": len(one.turns())}
    for segment in (one.ledger or {})["segments"]:
        segment["weight_version"] = EVIL
    file = tmp_path / "evil.html"
    language = language_of(FoundEpisodes(embedded=True), None)
    write_page(file, [one, replace(one, name=EVIL + "2")], title=EVIL, unreadable=[EVIL] * 9, language=language)
    assert "<script>window.owned" not in file.read_text()
    assert "<svg onload" not in file.read_text()

    async def act(page: Page) -> Any:
        await page.run("openEpisode(0, 1)")
        texts = await assert_harmless(page, "body > :not(script)")
        return texts, await page.run("[document.title, document.querySelector('h2').textContent]")

    texts, (title, heading) = browse(file, tmp_path, act)
    assert EVIL in texts
    assert EVIL in title
    assert heading == f"{EVIL} · {EVIL} task {EVIL}"


def test_what_no_encoding_or_json_knows_is_shown_all_the_same(episodes: list[Trajectory], tmp_path: Path) -> None:
    """Half a surrogate pair in a text and in a name, numbers that are not finite."""
    one = replace(episodes[0], name="a\ud800b", reward=float("nan"), stats={"agent_turns": 1, "seconds": float("inf")})
    one.messages = [{"role": "user", "content": "x\ud800y"}]
    write_page(tmp_path / "odd.html", [one], title="\udfff", world=False)

    async def act(page: Page) -> Any:
        return await page.run(
            "[document.querySelector('.text').textContent, [...document.querySelectorAll('.pre')].at(-1).textContent]"
        )

    text, counters = browse(tmp_path / "odd.html", tmp_path, act)
    assert text == "x?y"
    assert "Infinity" in counters


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
        await page.settled()
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
        await page.click(".message.assistant .expand, .message.tool .expand")
        await page.until("document.querySelector('.tokens .t')")
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


def test_a_page_without_episodes_says_so(tmp_path: Path) -> None:
    write_page(tmp_path / "none.html", [], title="none", unreadable=["line 1: not JSON"])

    async def act(page: Page) -> Any:
        return await page.run("document.body.innerText")

    said = browse(tmp_path / "none.html", tmp_path, act)
    assert "There is no episode to show." in said
    assert "unreadable: line 1: not JSON" in said
    assert "0 of 0 episodes" in said


def test_a_thousand_episodes_open_on_demand(episodes: list[Trajectory], tmp_path: Path) -> None:
    """What makes it quick: a chunk of episodes is unpacked when one of it is opened, and old ones are forgotten."""
    many = [replace(copy.copy(episodes[i % 8]), name=str(i)) for i in range(1000)]
    file = tmp_path / "many.html"
    size = write_page(file, many, title="many", language=language_of(FoundEpisodes(embedded=True), None), world=False)
    assert size < 25_000_000

    async def act(page: Page) -> Any:
        before = await page.run("[...unpacked.keys()]")
        started = time.perf_counter()
        for number in range(0, 1000, 90):
            await page.run(f"openEpisode({number})")
            assert await page.run("document.querySelector('h2').textContent.split(' ')[0]") == str(number)
        seconds = time.perf_counter() - started
        rows = await page.run(
            "[document.getElementById('count').textContent, document.querySelectorAll('.episode').length]"
        )
        return rows, before, await page.run("[...unpacked.keys()]"), seconds / 12

    rows, before, after, seconds = browse(file, tmp_path, act)
    print(json.dumps({"bytes": size, "seconds_to_open_one": round(seconds, 3)}))
    assert rows[0].startswith("1000 of 1000 episodes")
    assert 8 < rows[1] < 60, "only as many rows are drawn as fit on the screen"
    assert before == ["episodes-0"]
    assert 1 < len(after) <= 6
