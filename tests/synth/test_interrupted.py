"""Ctrl-C and kill -9 of a running `tau2-slime synth`: nothing is lost, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tau2_slime.runtime import exit_status
from tau2_slime.synth.generate import Plan, run
from tau2_slime.synth.journal import Journal

COUNT, SEED = 40, 11
COMMAND = [
    *(sys.executable, "-m", "tau2_slime.cli", "synth", "--domain", "retail", "--difficulty", "easy"),
    *("--num-samples", str(COUNT), "--seed", str(SEED)),
]


def started(folder: Path, processes: int) -> subprocess.Popen[str]:
    """A run as the head of a group of processes, in which Ctrl-C is not ignored whatever the test's own parent does."""
    return subprocess.Popen(
        [*COMMAND, "--max-concurrency", str(processes), "--output-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def members(group: int) -> set[int]:
    """The living processes of a group."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            name, _, rest = (entry / "stat").read_text().rpartition(")")
            state, _, its_group, *_ = rest.split()
            if int(its_group) == group and state not in "ZX":
                found.add(int(name.split()[0]))
    return found


def lines(folder: Path) -> int:
    journal = folder / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for(condition: object, what: str) -> None:
    assert callable(condition)
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(what)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_loses_nothing_and_leaves_nobody(
    how: signal.Signals, processes: int, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    process = started(folder, processes)
    wait_for(lambda: lines(folder) >= 3 or process.poll() is not None, "no task is made")
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    _, said = process.communicate(timeout=600)
    kept = lines(folder)
    assert 3 <= kept < COUNT
    assert process.returncode == (-how if how is signal.SIGKILL else exit_status.UNFINISHED)
    assert "Traceback" not in said
    assert ("this goes on: tau2-slime synth" in said) == (how is not signal.SIGKILL)
    wait_for(lambda: not members(process.pid), "a process is left")

    again = started(folder, processes)
    again.communicate(timeout=600)
    assert again.returncode == exit_status.FINE
    whole = Journal(tmp_path / "whole.jsonl")
    run([Plan("retail", "easy", COUNT, SEED)], whole)
    whole.close()
    assert (folder / "journal.jsonl").read_bytes() == whole.path.read_bytes()
    assert not members(again.pid)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_an_interruption_before_the_first_task_says_so(tmp_path: Path) -> None:
    process = started(tmp_path / "made", 2)
    wait_for(lambda: (tmp_path / "made" / "journal.jsonl").exists(), "nothing begins")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=600)
    assert process.returncode in (exit_status.INTERRUPTED, exit_status.UNFINISHED)
    assert "Traceback" not in said
    wait_for(lambda: not members(process.pid), "a process is left")
