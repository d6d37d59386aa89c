"""The server as a browser meets it: nothing without the token, nothing but reading, and one line for what goes wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.folders import write_folder
from tests.view.runs_on_disk import ROLLOUT, lines, write_lines


class Viewer:
    """`tau2-slime view` in a process of its own."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "tau2_slime.cli", "view", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def get(self, path: str = "", *, base: str | None = None, method: str = "GET") -> tuple[int, Any, Any]:
        """Status, headers, and the body: parsed if it is JSON."""
        request = urllib.request.Request((base or self.address) + path, method=method)
        try:
            reply = urllib.request.urlopen(request, timeout=120)
        except urllib.error.HTTPError as error:
            reply = error
        text = reply.read().decode()
        return reply.status, reply.headers, json.loads(text) if text.startswith("{") else text

    def rows(self) -> dict[str, Any]:
        return self.get("rows")[2]

    async def until(self, holds: Any) -> dict[str, Any]:
        for _ in range(1200):
            news = self.rows()
            if holds(news):
                return news
            await asyncio.sleep(0.1)
        raise AssertionError(f"never so: {news}")

    def stop(self, with_signal: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(with_signal)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_lines(folder / "trajectories.jsonl", lines()[:2])
    shutil.copy(ROLLOUT / "summary.json", folder)  # it names the tokenizer
    return folder


@pytest.fixture(scope="module")
def viewer(folder: Path) -> Iterator[Viewer]:
    viewer = Viewer(folder, "--follow")
    yield viewer
    if viewer.process.poll() is None:
        viewer.process.kill()
        viewer.process.communicate()


def test_it_is_of_this_machine_alone_and_needs_its_token(viewer: Viewer) -> None:
    found = re.fullmatch(r"(http://127\.0\.0\.1:(\d+)/)[\w-]{20,}/", viewer.address)
    assert found is not None
    root, port = found[1], int(found[2])
    for path in ("", "rows", "episode/0", "x" * 22 + "/", viewer.address.split("/")[3][:-1] + "/rows"):
        status, _, said = viewer.get(path, base=root)
        assert (status, "token" in said["error"]) == (404, True)
    other = next((a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)), "127.0.0.1")
    if not other.startswith("127."):
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=5)


def test_an_evaluation_brings_its_report_with_the_numbers_of_now(viewer: Viewer, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "run", lambda dataset, task, attempt: 1.0, tasks=2, attempts=2)
    records = (folder / "simulations.jsonl").read_text().splitlines(keepends=True)
    (folder / "simulations.jsonl").write_text("".join(records[:3]))
    of_evaluation = Viewer(folder, "--no-replay", "--follow")
    try:
        before = of_evaluation.get("report")[2]["html"]
        (folder / "simulations.jsonl").write_text("".join(records))
        after = of_evaluation.get("report")[2]["html"]
        (folder / "manifest.json").write_text("{")
        status, _, said = of_evaluation.get("report")
    finally:
        of_evaluation.stop()
    assert "NOT COMPLETE: 3 of 4 episodes" in before
    assert "NOT COMPLETE" not in after
    assert "4 episodes." in after
    assert status == 409
    assert "manifest.json" in said["error"]
    assert viewer.get("report")[0] == 404, "a rollout has none"


def test_it_only_reads_and_nobody_may_frame_it(viewer: Viewer) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert viewer.get("rows", method=method)[0] == 405
    status, headers, page = viewer.get()
    assert status == 200
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)|https?://(?!www\.w3\.org/2000/svg)|@import|url\(""", page)


async def test_new_episodes_come_while_it_follows(viewer: Viewer, folder: Path) -> None:
    await viewer.until(lambda news: len(news["rows"]) == 2)
    with (folder / "trajectories.jsonl").open("a") as file:
        file.write(json.dumps(lines()[2]) + "\n")
    news = await viewer.until(lambda news: len(news["rows"]) == 3)
    assert [row["name"] for row in news["rows"]] == [str(line["index"]) for line in lines()[:3]]
    assert not news["final"]
    nothing = viewer.get(f"rows?from=3&generation={news['generation']}&version={viewer.rows()['version']}")[2]
    assert "rows" not in nothing or nothing["rows"] == []


async def test_failures_are_diagnosed_by_and_by(viewer: Viewer) -> None:
    news = await viewer.until(lambda news: all(row["who"] for row in news["rows"]))
    assert {row["who"] for row in news["rows"] if row["reward"] == 0} <= {"agent", "user", "task"}
    assert {row["who"] for row in news["rows"] if row["reward"] == 1} == {"none"}


def test_an_episode_in_full(viewer: Viewer) -> None:
    status, _, one = viewer.get("episode/1?generation=0")
    assert status == 200
    assert one["tokens"]["ids"] == lines()[1]["ledger"]["tokens"]
    assert set(map(str, one["tokens"]["ids"])) == set(one["vocabulary"]["texts"])
    told = dict(one["scenario"])
    assert "create a task" in told["instructions"].lower()
    assert "DB" in told["rewarded for"]
    assert [row["same"] for row in one["gold"] if row["gold"]] == [True]
    assert viewer.get("episode/99?generation=0")[0] == 404
    assert viewer.get("episode/x?generation=0")[0] == 404
    assert viewer.get("search?q=NEVER+SAID")[2] == {"found": []}
    word = lines()[0]["messages"][1]["content"].split()[1].upper()
    assert 0 in viewer.get(f"search?q={word}")[2]["found"]


async def test_a_folder_that_vanishes_does_not_stop_it(viewer: Viewer, folder: Path) -> None:
    shutil.rmtree(folder)
    news = await viewer.until(lambda news: any("no such file or folder" in line for line in news["problems"]))
    assert len(news["rows"]) == 3
    status, _, said = viewer.get("episode/0?generation=0")
    assert (status, "No such file" in said["error"]) == (410, True)
    write_lines(folder / "trajectories.jsonl", lines()[3:])
    news = await viewer.until(lambda news: [row["name"] for row in news["rows"]] == [str(lines()[3]["index"])])
    assert news["problems"] == []


def test_a_port_that_is_taken_is_one_line(viewer: Viewer) -> None:
    port = viewer.address.split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "tau2_slime.cli", "view", str(ROLLOUT), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 2
    assert f"--port {port}: 127.0.0.1:{port} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_it(viewer: Viewer) -> None:
    """The last test of this module: the others need the viewer."""
    status, said = viewer.stop()
    assert status == 0
    assert said.rstrip().endswith("stopped")
    assert "Traceback" not in said
