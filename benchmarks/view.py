"""How long the viewer takes with thousands of episodes, and whether its list stutters: measured in Chromium.

    python benchmarks/view.py [--episodes 5000] [--run FOLDER]

It copies the episodes of a rollout (FOLDER, else 24 that the embedded policy plays) into 20 dumps as slime writes them, and
opens them as a user would: through the server, and as one file. Needs a Chromium; no model, no key, no network.

The page is open when the rows of all episodes are in it and the first are drawn. A frame of the list is late if it took
longer than 34 ms, two frames of a screen with 60 Hz; the list jumps by 15 rows from frame to frame.

On two cores that 30 other processes wanted at the same time (see the load that it prints), with 5,000 retail episodes: see
`docs/view.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.inspector.browser import Page, browsing  # noqa: E402

STEPS = 20
SCROLL = """new Promise((done) => {
  const times = [];
  let last = performance.now(), left = 200;
  list.scrollTop = 0;
  const frame = (now) => {
    times.push(now - last);
    last = now;
    list.scrollTop += 15 * ROW;
    if (--left) requestAnimationFrame(frame); else done(times.slice(1));
  };
  requestAnimationFrame(frame);
})"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tau2_slime.cli", *arguments]


def play(folder: Path) -> None:
    options = ("--domain", "retail", "--groups", "6", "--samples-per-prompt", "4", "--mistakes", "0.5")
    subprocess.run(command("rollout", *options, "--output-dir", str(folder)), check=True, stdout=subprocess.DEVNULL)


def with_conversations(run: Path) -> list[dict[str, Any]]:
    """The samples of a rollout's folder with their conversations, as slime dumps them."""

    def read(name: str) -> dict[int, dict[str, Any]]:
        return {row["index"]: row for row in map(json.loads, (run / name).read_text().splitlines())}

    samples, talks = read("samples.jsonl"), read("trajectories.jsonl")
    for index, sample in samples.items():
        names = ("messages", "rejected_calls", "generations", "reward_info")
        sample["metadata"]["tau2_trajectory"] = {name: talks[index].get(name) for name in names}
    return list(samples.values())


def write_dump(file: Path, samples: list[dict[str, Any]]) -> None:
    """What slime's ``--save-debug-rollout-data`` leaves of one step."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{file.stem}/data.pkl", pickle.dumps({"rollout_id": int(file.stem), "samples": samples}, 2))


def write_dumps(run: Path, folder: Path, episodes: int) -> None:
    """``episodes`` of slime's samples in `STEPS` dumps."""
    known, each = with_conversations(run), episodes // STEPS
    folder.mkdir(parents=True)
    for step in range(STEPS):
        rows = []
        for place in range(each):
            row = copy.copy(known[place % len(known)])
            row["index"], row["group_index"] = step * each + place, (step * each + place) // 4
            rows.append(row)
        write_dump(folder / f"{step}.pt", rows)


async def measure(page: Page, address: str, episodes: int, name: str) -> None:
    began = time.perf_counter()
    await page.send("Page.navigate", url=address)
    await page.until("document.body && document.body.dataset.ready === 'yes'")
    await page.until(f"rows.length === {episodes} && document.querySelector('#list .episode')")
    say(f"{name}: {episodes} episodes are open after", time.perf_counter() - began)
    await page.drawn()
    frames = sorted(await page.run(SCROLL))
    late = sum(time > 34 for time in frames)
    say(f"{name}: scrolling, median frame", frames[len(frames) // 2] / 1000)
    say(f"{name}: scrolling, 95th percentile", frames[int(len(frames) * 0.95)] / 1000)
    print(f"{name}: late frames: {late} of {len(frames)}")
    began = time.perf_counter()
    await page.run(f"openEpisode({episodes - 1})")
    say(f"{name}: one episode", time.perf_counter() - began)
    began = time.perf_counter()
    await page.run("(() => { search.value = 'order'; return find(); })()")
    say(f"{name}: a word in all conversations", time.perf_counter() - began)


def say(what: str, seconds: float) -> None:
    print(f"{what:60} {seconds:8.3f} s", flush=True)


async def measure_all(scratch: Path, dumps: Path, episodes: int) -> None:
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    began = time.perf_counter()
    server = subprocess.Popen(  # noqa: ASYNC220 - nothing else is to run meanwhile
        command("view", str(dumps), "--no-replay"), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        say("server: its address is printed after", time.perf_counter() - began)
        async with browsing(scratch) as page:
            await page.look(1280, 900)
            await page.send("Page.navigate", url=address)
            await page.until("document.querySelector('#list .episode')", 600)
            say("server: the first episodes are listed after", time.perf_counter() - began)
            await page.until("document.getElementById('live').textContent === ''", 1800)
            say("server: all episodes are read after", time.perf_counter() - began)
            await measure(page, address, episodes, "server")
            file = scratch / "all.html"
            subprocess.run(command("view", str(dumps), "--no-replay", "--html", str(file)), check=True)  # noqa: ASYNC221
            await measure(page, file.as_uri(), episodes, "one file")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    print(f"load {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=5000)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        run = options.run or scratch / "run"
        if options.run is None:
            play(run)
        dumps = scratch / "details" / "rollout_data"
        write_dumps(run, dumps, options.episodes)
        asyncio.run(measure_all(scratch, dumps.parent, options.episodes // STEPS * STEPS))


if __name__ == "__main__":
    main()
