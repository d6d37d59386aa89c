"""Which episodes leave, and what is said of those that stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.export.episodes import CHOICES, FIXED, Filters, Run, counts, filtered, read_runs
from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.world import domains

pytestmark = pytest.mark.fast
REASONS = [reason for reason in (*CHOICES, *FIXED) if reason != "diagnosis"]  # test_diagnosis_filter.py
TEST_TASK, TRAIN_TASK = (domains.splits("retail")[split][0] for split in ("test", "train"))


def trajectory(name: str = "0", **changes: Any) -> Trajectory:
    """A flawless episode of a retail training task."""
    ledger = {"prompt_length": 2, "tokens": [5, 6, 7, 8, int(name)], "loss_mask": [1, 1, 0], "segments": []}
    fields = {"domain": "retail", "task_split": "base", "task_id": TRAIN_TASK, "agent_type": "llm", "reward": 1.0}
    stats = {"tool_calls": {"ok": 3}, "user_flaws": {}}
    return Trajectory(name, "here", **{**fields, "ledger": ledger, "stats": stats, "blame": "agent", **changes})


def left_out(*trajectories: Trajectory, **filters: Any) -> list[str]:
    run = Run(Path("run"), FoundEpisodes(list(trajectories)), "x")
    return [episode.left_out for episode in filtered([run], Filters(**filters))]


def spoilt(reason: str) -> Trajectory:
    """Another episode, with one flaw."""
    flawed = trajectory("9")
    assert flawed.ledger is not None
    changes: dict[str, dict[str, Any]] = {
        "failed": {"excluded": True},
        "test-task": {"task_id": TEST_TASK},
        "reward": {"reward": 0.99},
        "malformed-call": {"stats": {"tool_calls": {"ok": 3, "unclosed": 1}}},
        "simulator-flaw": {"stats": {"user_flaws": {"leak": 1}}},
        "length": {"ledger": {**flawed.ledger, "tokens": [1] * 9}},
        "no-trainable-token": {"ledger": {**flawed.ledger, "loss_mask": [0, 0, 0]}},
        "duplicate": {"ledger": trajectory().ledger},
    }
    for name, value in changes[reason].items():
        setattr(flawed, name, value)
    return flawed


@pytest.mark.parametrize("reason", REASONS)
def test_each_flaw_keeps_an_episode_here_and_nothing_else_does(reason: str) -> None:
    assert left_out(trajectory(), spoilt(reason), max_tokens=8) == ["", reason]
    lifted = left_out(trajectory(), spoilt(reason), max_tokens=8, keep=frozenset({reason} & CHOICES.keys()))
    assert lifted == ["", "" if reason in CHOICES else reason]


def test_an_episode_without_a_reward_is_not_one_of_reward_0() -> None:
    assert left_out(trajectory(reward=None), min_reward=0.0) == ["failed"]
    assert left_out(trajectory(reward=0.0), min_reward=0.0) == [""]


def test_tasks_of_the_test_split_stay_whatever_split_they_were_played_in() -> None:
    assert left_out(trajectory(task_id=TEST_TASK, task_split="base")) == ["test-task"]
    assert left_out(trajectory(task_split="test")) == ["test-task"]
    assert left_out(trajectory(domain="mock", task_id="create_task_1")) == [""]  # mock has no test split
    assert left_out(trajectory(domain="elsewhere")) == ["test-task"]  # nobody can tell


def test_tasks_of_a_held_out_file_stay(tmp_path: Path) -> None:
    row = {"index": 0, "prompt": "x", "metadata": {"domain": "retail", "task_split": "train", "task_id": TRAIN_TASK}}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n")
    assert left_out(trajectory(), held_out=(tmp_path / "dev.jsonl",)) == ["test-task"]
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        left_out(trajectory(), held_out=(tmp_path / "none.jsonl",))


def test_duplicates_are_found_across_runs_and_only_among_what_leaves() -> None:
    runs = [Run(Path(name), FoundEpisodes([trajectory()]), "x") for name in ("a", "b")]
    first, second = filtered(runs, Filters())
    assert (first.left_out, second.left_out) == ("", "duplicate")
    assert second.why == "the same as a:0"
    assert left_out(trajectory(reward=0.0), trajectory()) == ["reward", ""]
    assert left_out(trajectory("0"), trajectory("1")) == ["", ""]  # one token differs
    assert left_out(trajectory(), trajectory("0", task_id="3")) == ["", ""]


def test_without_tokens_the_words_decide() -> None:
    said = [{"role": "assistant", "content": "Hello"}]
    kept = left_out(trajectory(ledger=None, messages=said), trajectory("1", ledger=None, messages=said))
    assert kept == ["", "duplicate"]


def test_every_episode_is_counted_once() -> None:
    spoilt_ones = [trajectory(), *map(spoilt, REASONS)]
    run = Run(Path("run"), FoundEpisodes(spoilt_ones), "x")
    episodes = filtered([run], Filters(max_tokens=8))
    assert sum(counts(episodes).values()) + sum(not one.left_out for one in episodes) == len(spoilt_ones)


def test_a_run_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"index": 0, "messages": [], "termination": "user_stop", "stats": {}})
    (tmp_path / "trajectories.jsonl").write_text(line + "\n")
    with pytest.raises(ConfigError, match="named twice"):
        read_runs([tmp_path, tmp_path / "."])


def test_a_runs_fingerprint_is_of_what_it_was_to_play(tmp_path: Path) -> None:
    line = json.dumps({"index": 0, "messages": [], "termination": "user_stop", "stats": {}})
    prints = {}
    for name, plan in (("a", "{}"), ("b", "{}"), ("c", '{"sampling": {}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trajectories.jsonl").write_text(line + "\n")
        (tmp_path / name / "rollout.json").write_text(plan)
        prints[name] = read_runs([tmp_path / name])[0].fingerprint
    assert prints["a"] == prints["b"] != prints["c"]
