"""Rows that nobody of the package wrote: each is shown, or named as unreadable; none stops the command."""

from __future__ import annotations

import copy
import io
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tau2_slime.errors import ConfigError
from tau2_slime.inspector import terminal
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.database_diff import DatabaseDiff
from tau2_slime.inspector.episode_view import episode_view
from tau2_slime.inspector.packing import pack
from tau2_slime.inspector.sources import read_episodes
from tests.test_cli import rows

VALUES: list[Any] = [
    *(None, True, -1, 0, 10**400, 2**63, -(10**18), 1e308, float("inf"), float("nan")),
    *("", "x", "-1", "1e999", "\ud800", "\x1b[2J", [], {}, [None], [[]], [10**30], {"a": None}, {"tokens": 3}),
]
SEEDS = 8
EACH = 60


def places(value: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key in value if isinstance(value, dict) else range(min(len(value), 4)) if isinstance(value, list) else ():
        yield from places(value[key], (*at, key))  # type: ignore[index]


def spoilt(row: dict[str, Any], rng: random.Random) -> object:
    """``row`` with other values, or none, in a few places."""
    out: Any = copy.deepcopy(row)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.choice(list(places(out)))
        if not at:
            return copy.deepcopy(rng.choice(VALUES))
        inner = out
        for key in at[:-1]:
            inner = inner[key]
        if rng.random() < 0.15:
            del inner[at[-1]]
        else:
            inner[at[-1]] = copy.deepcopy(rng.choice(VALUES))
    return out


def files(rollout: Path, rng: random.Random) -> dict[str, object]:
    sample, trajectory = (rng.choice(rows(rollout / f"{name}.jsonl")) for name in ("samples", "trajectories"))
    run = {"id": "s", "trial": 0, "termination_reason": "user_stop", "duration": 1.0, **trajectory}
    record = {"dataset": "d", "item": "mock/base/x", "attempt": 0, "excluded": False, "clock": {}, **trajectory}
    results = {"info": {"environment_info": {"domain_name": "mock"}}, "tasks": [{"id": "0"}], "simulations": [run]}
    return rng.choice(
        [
            {"samples.jsonl": spoilt(sample, rng)},
            {"samples.jsonl": spoilt(sample, rng), "trajectories.jsonl": spoilt(trajectory, rng)},
            {"trajectories.jsonl": spoilt(trajectory, rng)},
            {"simulations.jsonl": spoilt(record, rng)},
            {"results.json": spoilt(results, rng)},
        ]
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_row_stops_the_inspector(rollout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(terminal, "new_console", lambda: Console(file=io.StringIO(), width=100))
    rng = random.Random(seed)
    for number in range(EACH):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in files(rollout, rng).items():
            (folder / name).write_text(json.dumps(content))
        began = time.process_time()
        try:
            found = read_episodes(folder)
        except ConfigError as error:
            assert len(str(error)) < 1000
            continue
        assert found.trajectories or found.unreadable
        for one in found.trajectories:
            check_trajectory(one)
            pack([episode_view(one, DatabaseDiff(note="not compared"))])
            terminal.show_episode(one, None, world=False)
        terminal.show_list(found.trajectories, found.unreadable)
        assert time.process_time() - began < 2
