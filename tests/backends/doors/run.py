"""Every door over the same cases, each in its own environment, and τ² beside them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.backends.doors import cases as case_files
from tests.backends.doors import records as record_files
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record
from tests.backends.doors.reference import Reference, reference
from tests.backends.setup_env import REPOSITORY, EnvUnavailable, backend_python

SAMPLED = ("slime", "eval_router", "tinker")
"""Doors that read the policy's turns from sampled tokens; the others are told them by a chat-completions server."""
TOLD = ("eval_api", "verifiers_v0", "verifiers_v1")
DOORS = (*SAMPLED, *TOLD)
_ENVIRONMENTS = {"tinker": "tinker", "verifiers_v0": "verifiers", "verifiers_v1": "verifiers-v1"}
"""Door -> `setup_env`'s name; the others need no more than the package does."""
_AT_ONCE = 2
_TIMEOUT = 7200


@dataclass
class Played:
    """What became of the cases at every door that could be opened."""

    cases: list[Case]
    records: dict[str, dict[str, Record]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    """Doors whose environment cannot be had here, and why."""
    _references: dict[tuple[str, bool], Reference] = field(default_factory=dict)

    def expected(self, case: Case, door: str) -> Reference:
        # Most scripts are heard alike by both kinds of doors.
        blanks = any(turn.content != (turn.content or "").strip() for turn in case.script.agent if turn.content)
        key = (case.key, blanks and door in SAMPLED)
        if key not in self._references:
            self._references[key] = reference(case, sampled=key[1])
        return self._references[key]


def play(cases: list[Case], folder: Path, checkpoint: Path, doors: Iterable[str] = DOORS, *options: str) -> Played:
    """All of ``cases`` through all of ``doors``, two doors at a time.

    Raises:
        RuntimeError: a door broke down; the message is what it printed last.
    """
    played, todo = Played(cases), folder / "cases.jsonl"
    case_files.write(todo, cases)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        started: dict[str, Future[dict[str, Record]]] = {}
        for door in doors:
            try:
                python = python_of(door)
            except EnvUnavailable as unavailable:
                played.missing[door] = str(unavailable)
                continue
            started[door] = pool.submit(through, door, python, todo, folder, checkpoint, *options)
        played.records = {door: future.result() for door, future in started.items()}
    return played


def python_of(door: str) -> Path:
    """The interpreter that has the door's framework. Raises EnvUnavailable."""
    import sys

    name = _ENVIRONMENTS.get(door)
    if name is None:
        return Path(sys.executable)
    given = os.environ.get(f"TAU2_SLIME_PYTHON_{door.upper()}")
    return Path(given) if given else backend_python(name)


def through(door: str, python: Path, todo: Path, folder: Path, checkpoint: Path, *options: str) -> dict[str, Record]:
    """The records of one door, played in a process of its own."""
    out = folder / f"{door}.jsonl"
    environ: dict[str, Any] = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TAU2_")},
        "PYTHONPATH": str(REPOSITORY),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    if "TAU2_DATA_DIR" in os.environ:
        environ["TAU2_DATA_DIR"] = os.environ["TAU2_DATA_DIR"]
    command = [str(python), "-m", "tests.backends.doors", door, str(todo), str(out), "--checkpoint", str(checkpoint)]
    done = subprocess.run(
        [*command, *options], cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False, timeout=_TIMEOUT
    )
    if done.returncode:
        raise RuntimeError(f"{door} broke down: {done.stdout[-1000:]}{done.stderr[-4000:]}")
    return record_files.read(out)
