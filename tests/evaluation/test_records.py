"""simulations.jsonl: nothing lost, nothing twice, whatever the file looks like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.store.records import Store, name_of


def record(attempt: int, reward: float | None = 1.0) -> dict:
    return {
        "dataset": "d",
        "item": "mock/base/t",
        "attempt": attempt,
        "excluded": reward is None,
        "reward": reward,
        "termination": "user_stop",
        "messages": [{"role": "user", "content": "Grüße \u2028 ###STOP###"}],
    }


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    with Store(tmp_path).writing() as store:
        for i in range(3):
            store.append(record(i))
        with pytest.raises(RuntimeError, match="already"):
            store.append(record(1))
    again = Store(tmp_path).read()
    assert list(again.records.values()) == [record(i) for i in range(3)]
    assert again.damaged == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(cut=st.integers(0, 100_000))
def test_a_file_cut_anywhere_loses_only_the_line_that_was_cut(tmp_path: Path, cut: int) -> None:
    whole = b"".join(json.dumps(record(i)).encode() + b"\n" for i in range(4))
    cut %= len(whole) + 1
    (tmp_path / "simulations.jsonl").write_bytes(whole[:cut])
    complete = {name_of(record(i)) for i in range(whole[:cut].count(b"\n"))}
    with Store(tmp_path).writing() as store:
        # A line that lacks nothing but its end is whole, too.
        assert complete <= set(store.records)
        assert len(store.records) <= len(complete) + 1
        for i in range(4):
            if name_of(record(i)) not in store.records:
                store.append(record(i))
    lines = (tmp_path / "simulations.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["attempt"] for line in (tmp_path / "simulations.jsonl").open()) == [0, 1, 2, 3]
    assert lines


def test_rubbish_in_the_middle_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "simulations.jsonl"
    path.write_bytes(
        json.dumps(record(0)).encode() + b'\n{"dataset": "d"}\n\xff\x00\n[]\n' + json.dumps(record(1)).encode() + b"\n"
    )
    with Store(tmp_path).writing() as store:
        assert (len(store.records), store.damaged) == (2, 3)
    assert len(path.read_bytes().splitlines()) == 2


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with Store(tmp_path).writing(), pytest.raises(ConfigError, match="another evaluation"), Store(tmp_path).writing():
        pass


def test_excluded_ones_can_be_played_again(tmp_path: Path) -> None:
    with Store(tmp_path).writing() as store:
        store.append(record(0))
        store.append(record(1, None))
    with Store(tmp_path).writing(replay_excluded=True) as store:
        assert list(store.records) == [("d", "mock/base/t", 0)]
        store.append(record(1, 0.0))
    assert [r["reward"] for r in Store(tmp_path).read().records.values()] == [1.0, 0.0]
