"""report.html in a real browser: self-contained; readable at 1280 and 400 pixels, light and dark; conversations open."""

from __future__ import annotations

import html
import http.server
import json
import os
import re
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tau2_slime.evaluation.report.html import render
from tau2_slime.evaluation.report.markdown import render as render_md
from tau2_slime.evaluation.statistics.summary import read_folder
from tests.evaluation.folders import write_folder

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
    assert not re.search(r"https?://|@import|url\(", page)


def test_both_reports_say_the_same(folder: Path) -> None:
    summary = read_folder(folder)
    page, markdown = (folder / "report.html").read_text(), render_md(summary)
    value = f"{summary.overall.scores.pass_hat[1].value:.3f}"
    assert f"<td>{value}</td>" in page
    assert f"| {value}" in markdown
    for words in ("NOT COMPLETE: 71 of 72", "no answer within 120 s (5 tries)", "find_user"):
        assert words in page
        assert words in markdown


def test_what_models_say_is_text_not_markup(tmp_path: Path) -> None:
    evil = "</script><script>document.title='owned'</script>"
    folder = write_folder(tmp_path / evil.replace("/", "_"), lambda d, t, i: 1.0, datasets={evil: evil})
    page = render(read_folder(folder))
    assert "owned" not in page.replace("&lt;", "").split("<main>")[0]
    assert evil not in page


def test_two_thousand_episodes_stay_under_five_megabytes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "big", mixed, datasets=USERS, tasks=167, attempts=4, turns=6)
    summary = read_folder(folder)
    assert len(summary.played) == 2004
    assert len(render(summary).encode()) < 5_000_000
    assert (folder / "simulations.jsonl").stat().st_size > 10_000_000


# ---- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> str:
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome", "chrome"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: install one (apt-get install chromium), or name it in CHROMIUM")
    return found


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def browse(chromium: str, tmp_path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [
            chromium,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


MEASURE = """<body style="margin:0"><iframe id="f" src="report.html{hash}" width="{width}" height="{height}" style="border:0"
></iframe><p id="out">waiting</p><script>
addEventListener("load", () => setTimeout(() => {{
  const f = document.getElementById("f"), d = f.contentDocument, w = f.contentWindow, root = d.documentElement;
  const over = [...d.querySelectorAll("main *")].filter((e) => !e.closest(".scroll") && !e.closest("svg")
    && e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.tagName + "." + e.className);
  const cell = d.querySelector("a.cell.solved"), look = w.getComputedStyle(d.body);
  document.getElementById("out").textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth, over, cells: d.querySelectorAll(".maps .cell").length,
    links: d.querySelectorAll(".maps a.cell").length, charts: d.querySelectorAll("svg").length,
    cell: cell.getBoundingClientRect().width, page: look.backgroundColor, ink: look.color,
    open: d.getElementById("episode").open, title: d.querySelector("#episode h2").textContent,
    talk: d.querySelector(".talk").textContent, said: d.querySelectorAll(".say").length}});
}}, 500));</script></body>"""


def measure(chromium: str, folder: Path, url: str, tmp_path: Path, *, width: int, dark: bool, hash: str = "") -> dict:
    (folder / "measure.html").write_text(MEASURE.format(width=width, height=1600, hash=hash))
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    dom = browse(chromium, tmp_path, scheme, "--window-size=1400,1800", "--dump-dom", f"{url}/measure.html")
    found = re.search(r'<p id="out">(.*?)</p>', dom, re.DOTALL)
    assert found is not None
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_fits_and_can_be_read(chromium: str, folder: Path, url: str, tmp_path: Path, width: int, dark: bool) -> None:
    seen = measure(chromium, folder, url, tmp_path, width=width, dark=dark)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["over"] == []
    assert (seen["cells"], seen["links"], seen["charts"]) == (72, 71, 2)
    assert seen["cell"] >= 20
    assert contrast(seen["page"], seen["ink"]) > 7
    assert (luminance(seen["page"]) < 0.1) == dark


def test_a_cell_opens_its_conversation(chromium: str, folder: Path, url: str, tmp_path: Path) -> None:
    page = (folder / "report.html").read_text()
    link = re.search(r'<a class="cell excluded" href="(#episode-\d+)"', page)
    assert link is not None
    seen = measure(chromium, folder, url, tmp_path, width=1280, dark=False, hash=link[1])
    assert seen["open"]
    assert seen["title"] == "airline-a: task task_1, attempt 3"
    assert "no answer within 120 s" in seen["talk"]
    assert "Please <b>help</b> me & mine" in seen["talk"]
    assert 'find_user({"user_id"' in seen["talk"]
    assert seen["said"] == 6


def test_a_screenshot_is_not_blank(chromium: str, url: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browse(chromium, tmp_path, "--window-size=1280,2000", f"--screenshot={picture}", f"{url}/report.html")
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (1280, 2000)
    assert len(data) > 50_000  # a page without content compresses to a tenth of that


def luminance(colour: str) -> float:
    """WCAG's relative luminance of ``rgb(r, g, b)``."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
