"""report.html in a real browser: self-contained; readable at 1280 and 400 pixels, light and dark; conversations open."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.evaluation.report.html import render
from tau2_slime.evaluation.report.markdown import render as render_md
from tau2_slime.evaluation.statistics.summary import Summary, read_folder
from tau2_slime.inspector.database_diff import compare_with_gold
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tests.evaluation.folders import write_folder
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

USERS = {"airline-a": "vendor/a", "airline-b": "vendor/b", "airline-c": "vendor/c"}


def mixed(dataset: str, task: int, attempt: int) -> float | None:
    return None if (task, attempt) == (1, 2) else float((task + attempt) % 3 > 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(
        tmp_path_factory.mktemp("report") / "run",
        mixed,
        datasets=USERS,
        tasks=6,
        played=lambda dataset, task, attempt: (dataset, task, attempt) != ("airline-c", 5, 3),
    )
    (folder / "report.html").write_text(render(read_folder(folder)))
    return folder


def test_nothing_comes_from_elsewhere(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
    assert {*re.findall(r"https?://[^\"]*", page)} == {"http://www.w3.org/2000/svg"}, "a name, and not an address"
    assert not re.search(r"@import|url\(", page)


def test_both_reports_say_the_same(folder: Path) -> None:
    summary = read_folder(folder)
    page, markdown = (folder / "report.html").read_text(), render_md(summary)
    value = f"{summary.overall.scores.pass_hat[1].value:.3f}"
    assert f"<td>{value}</td>" in page
    assert f"| {value}" in markdown
    for words in ("NOT COMPLETE: 71 of 72", "no answer within 120 s (5 tries)", "find_user"):
        assert words in page
        assert words in markdown


def test_two_thousand_episodes_stay_under_five_megabytes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "big", mixed, datasets=USERS, tasks=167, attempts=4, turns=6)
    summary = read_folder(folder)
    assert len(summary.played) == 2004
    page = render(summary)
    assert 2_000_000 < len(page.encode()) < 5_000_000, "smaller, it would have lost its conversations"
    assert (folder / "simulations.jsonl").stat().st_size > 10_000_000


# ---- in a browser ------------------------------------------------------------------------------------------------------


MEASURE = """(() => {
  const root = document.documentElement, cell = document.querySelector("a.cell.solved");
  const look = getComputedStyle(document.body);
  const over = [...document.querySelectorAll("#report *")].filter((e) => !e.closest(".scroll") && !e.closest("svg")
    && e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.tagName + "." + e.className);
  return {width: root.clientWidth, scroll: root.scrollWidth, over, cells: document.querySelectorAll(".cells .cell").length,
    links: document.querySelectorAll(".cells a[href]").length, charts: document.querySelectorAll("#report svg").length,
    cell: cell.getBoundingClientRect().width, page: look.backgroundColor, ink: look.color};
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(folder: Path, tmp_path: Path, width: int, dark: bool) -> None:
    seen = browse(folder / "report.html", tmp_path, lambda page: page.run(MEASURE), width=width, dark=dark)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["over"] == []
    assert (seen["cells"], seen["links"], seen["charts"]) == (72, 71, 2)
    assert seen["cell"] >= 20
    assert contrast(seen["page"], seen["ink"]) > 7
    assert (luminance(seen["page"]) < 0.1) == dark


TALK = "document.querySelector('.conversation').innerText"


def test_a_cell_opens_its_conversation(folder: Path, tmp_path: Path) -> None:
    async def act(page: Page) -> Any:
        await page.click(".cells .excluded")
        await page.until("document.querySelector('.conversation h2')")
        seen = [await page.run(TALK), await page.run("document.querySelectorAll('.message').length")]
        seen.append(await page.run("document.querySelector('#list [aria-current]').title.split(' ')[0]"))
        await page.press("Escape")
        await page.until("document.querySelector('#detail .cells')")
        return [*seen, await page.run("location.hash")]

    talk, messages, chosen, fragment = browse(folder / "report.html", tmp_path, act)
    assert talk.startswith("airline-a: task task_1, attempt 3")
    assert "no answer within 120 s" in talk
    assert "Please <b>help</b> me & mine" in talk
    assert 'find_user {"user_id"' in talk
    assert messages == 6
    assert chosen == "airline-a/mock/base/task_1#2", "the list beside it says which one it is"
    assert fragment == "", "a closed conversation is not in the address"


def test_an_address_opens_its_conversation(folder: Path, tmp_path: Path) -> None:
    page = (folder / "report.html").read_text()
    link = re.search(r'<a class="cell failed" title="([^"]*)" href="(#[^"]+)"', page)
    assert link is not None
    talk = browse(folder / "report.html", tmp_path, lambda page: page.run(TALK), fragment=link[2])
    task, attempt = re.match(r"(\w+), attempt (\d+): failed", link[1]).groups()  # type: ignore[union-attr]
    assert talk.startswith(f"airline-a: task {task}, attempt {attempt}")


def test_an_address_of_no_conversation_opens_none(folder: Path, tmp_path: Path) -> None:
    there = "Boolean(document.querySelector('#detail .cells')) && !document.querySelector('.conversation')"
    assert browse(folder / "report.html", tmp_path, lambda p: p.run(there), fragment="#episode-999") is True


def test_the_way_back_leads_to_the_same_place_of_the_report(folder: Path, tmp_path: Path) -> None:
    async def act(page: Page) -> list[float]:
        await page.run("document.querySelector('.cells .failed').scrollIntoView({block: 'center'})")
        await page.drawn()
        tops = [await page.run("detail.scrollTop")]
        await page.click(".cells .failed")
        await page.until("document.querySelector('.conversation h2')")
        tops.append(await page.run("detail.scrollTop"))
        await page.run("history.back()")
        await page.until("document.querySelector('#detail .cells')")
        return [*tops, await page.run("detail.scrollTop")]

    before, within, after = browse(folder / "report.html", tmp_path, act)
    assert before > 0
    assert within == 0
    assert after == before


def test_a_failure_in_it_is_diagnosed_as_by_the_viewer(tmp_path: Path) -> None:
    """Diagnosis, search, filters and the shares of causes: the page is the viewer's."""
    run = tmp_path / "run"
    options = (
        "--domain",
        "retail",
        "--tasks",
        "3",
        "--attempts",
        "2",
        "--gold-rate",
        "0.5",
        "--user-model",
        "scripted",
    )
    done = tau2_slime("eval", *options, "--no-baselines", "--output-dir", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    told = tau2_slime("diagnose", str(run), "--jsonl", str(tmp_path / "found.jsonl"))
    assert told.returncode == 0, told.stderr
    found = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    failed = [f"{one['who']}: {one['what']}" for one in found if one["who"] != "none"]
    assert failed

    async def act(page: Page) -> dict[str, Any]:
        seen = {"causes": await page.run("rows.map((row) => causeOf(row)).filter(Boolean)")}
        await page.click(".cells .failed")
        await page.until("document.querySelector('.conversation .diagnosis')")
        seen["scenario"] = await page.run("Boolean(document.querySelector('.conversation .scenario'))")
        await page.press("c")
        await page.until("document.querySelector('#detail figure')")
        seen["bars"] = await page.run("document.querySelector('#detail').innerText")
        await page.press("r")
        await page.until("document.querySelector('#detail .cells')")
        return seen

    seen = browse(run / "report.html", tmp_path, act)
    assert sorted(seen["causes"]) == sorted(failed)
    assert seen["scenario"]
    assert failed[0].replace(":", "") in seen["bars"]


def test_every_turns_tokens_are_those_of_the_file(tmp_path: Path) -> None:
    """The same viewer as the inspector's, on a real run that kept its tokens."""
    run = tmp_path / "run"
    done = tau2_slime(
        *(
            "eval",
            "--domain",
            "mock",
            "--tasks",
            "2",
            "--attempts",
            "2",
            "--gold-rate",
            "0.5",
            "--user-model",
            "scripted",
        ),
        *("--keep-tokens", "--no-baselines", "--output-dir", str(run)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_episodes(run)
    trajectories = {f"{one.task_id} {one.name[-1]}": one for one in found.trajectories}
    assert len(trajectories) == 4
    assert found.embedded, "the manifest says which tokenizer it was"

    async def act(page: Page) -> Any:
        seen = {}
        for number in range(4):
            await page.click(".cells .cell", number)
            await page.until("document.querySelector('.conversation h2')")
            title = await page.run("document.querySelector('.conversation h2').textContent")
            seen[title] = await read_tokens(page, ".message.assistant"), await page.run(TALK)
            await page.click("#report-button")
            await page.until("document.querySelector('#detail .cells')")
        return seen

    seen = browse(run / "report.html", tmp_path, act)
    language = language_of(found, None)
    for title, (turns, talk) in seen.items():
        task, attempt = re.search(r"task (\w+), attempt (\d+)", title).groups()  # type: ignore[union-attr]
        one = trajectories[f"{task} {int(attempt) - 1}"]
        assert_turns_are_the_ledgers(turns, one, language)
        wrong = one.reward == 0 and any(not change.same for change in compare_with_gold(one).changes)
        assert ("this episode" in talk) == wrong
    assert {one.reward for one in trajectories.values()} == {0.0, 1.0}


def test_what_does_not_fit_is_left_out_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the tokens go, then the ends of long texts, at last the conversations; never the tables."""
    from tau2_slime.evaluation.report import html

    summary = read_folder(folder)
    for number, record in enumerate(summary.played):
        record["messages"][-1]["content"] = random.Random(number).randbytes(3000).hex()
        ids = random.Random(number).choices(range(50_000), k=500)
        record["ledger"] = {"tokens": ids, "prompt_length": 100, "loss_mask": [1] * 400, "log_probs": [-1.0] * 400}

    def render_within(limit: int) -> str:
        monkeypatch.setattr(html, "LIMIT", limit)
        return render(summary)

    whole = render_within(10_000_000)
    without_tokens = render_within(len(whole) - 2000)
    cut = render_within(len(without_tokens) - 2000)
    bare = render_within(1)
    assert all("<td>" in page for page in (whole, without_tokens, cut, bare))
    assert [(bool(one["tokens"]), len(one["entries"][-1]["text"])) for one in packed(whole)] == [(True, 6000)] * 71
    assert [(bool(one["tokens"]), len(one["entries"][-1]["text"])) for one in packed(without_tokens)] == [
        (False, 6000)
    ] * 71
    assert all("more characters in simulations.jsonl" in one["entries"][-1]["text"] for one in packed(cut))
    assert packed(bare) == []


def packed(page: str) -> list[dict[str, Any]]:
    """The episodes of a page."""
    chunks = re.findall(r'<script type="text/plain" id="episodes-\d+">([^<]*)</script>', page)
    return [one for chunk in chunks for one in json.loads(gzip.decompress(base64.b64decode(chunk)))]


@pytest.mark.parametrize("keep_roles", [True, False])
def test_what_models_say_is_text_not_markup(tmp_path: Path, keep_roles: bool) -> None:
    """Hostile text in every field of the records and of the manifest's names."""
    name = "evil\u2028" + EVIL.replace("/", "|")
    folder = write_folder(tmp_path / "run", mixed, datasets={name: EVIL}, tasks=3)
    summary = read_folder(folder)
    fixed = frozenset({"dataset", "item", *(("role",) if keep_roles else ())})
    for record in summary.played:
        poison = {
            **poisoned(record, keep=fixed),
            "dataset": record["dataset"],
            "tries": [{"termination": EVIL, "detail": EVIL}],
        }
        record.update(poison, reward_info={EVIL: {EVIL: EVIL}, "reward_breakdown": {EVIL: 1.0}})
    manifest = json.loads(json.dumps(summary.manifest))
    manifest["subject"] = poisoned(manifest["subject"])
    summary = Summary(**{**vars(summary), "manifest": manifest, "end": EVIL, "notes": [EVIL]})
    (tmp_path / "evil.html").write_text(render(summary))
    assert "<script>window.owned" not in (tmp_path / "evil.html").read_text()

    async def act(page: Page) -> Any:
        await page.click(".cells .failed")
        await page.until("document.querySelector('.conversation h2')")
        return await assert_harmless(page, "body > :not(script)"), await page.run("document.title")

    texts, title = browse(tmp_path / "evil.html", tmp_path, act)
    assert EVIL in texts
    assert EVIL in title


def test_a_picture_of_it_is_not_blank(folder: Path, tmp_path: Path) -> None:
    data = browse(folder / "report.html", tmp_path, lambda page: page.picture())
    assert struct.unpack(">II", data[16:24]) == (1280, 900)
    assert len(data) > 50_000  # a page without content compresses to a tenth of that


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``rgb(r, g, b)``."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
