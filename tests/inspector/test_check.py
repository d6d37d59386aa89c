"""`tau2-slime inspect --check`: a true file passes, and no single corruption of one does."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.drift_check import DriftCounts, check_drift
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.rollout import RolloutPlan, plan_jobs, run
from tests.test_cli import tau2_slime

Row = dict[str, Any]


def violations(path: Path, *, render: bool = False) -> list[str]:
    loaded = read_episodes(path)
    found = [*loaded.unreadable, *(str(v) for one in loaded.trajectories for v in check_trajectory(one))]
    if render and not found:
        language = language_of(loaded, None)
        assert language is not None
        found += [str(v) for one in loaded.trajectories for v in check_drift(one, language, DriftCounts())]
    return found


def rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, content: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def test_a_true_rollout_passes_and_says_what_was_compared(rollout: Path) -> None:
    done = tau2_slime("inspect", "--check", str(rollout))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 samples, 8 with tokens: 0 violations" in done.stdout
    assert "rendered again: 8 first prompts" in done.stdout


def test_each_of_the_two_files_passes_alone(rollout: Path, tmp_path: Path) -> None:
    for name in ("samples.jsonl", "trajectories.jsonl"):
        alone = tmp_path / name
        shutil.copy(rollout / name, alone)
        assert violations(alone) == []


def test_the_command_names_sample_and_position(rollout: Path, tmp_path: Path) -> None:
    content = rows(rollout / "samples.jsonl")
    row = next(row for row in content[1:] if not row["remove_sample"] and 0 in row["loss_mask"])
    start = len(row["tokens"]) - row["response_length"]
    at = start + row["loss_mask"].index(0)
    row["loss_mask"][at - start] = 1
    write(tmp_path / "samples.jsonl", content)
    done = tau2_slime("inspect", "--check", str(tmp_path / "samples.jsonl"))
    assert done.returncode == 1
    assert f"sample {row['index']}, token {at}: this token was context, but in the loss" in done.stdout


def test_a_half_written_line_is_a_violation(rollout: Path, tmp_path: Path) -> None:
    text = (rollout / "samples.jsonl").read_text()
    (tmp_path / "samples.jsonl").write_text(text[: len(text) - 100])
    assert any("not JSON" in line for line in violations(tmp_path))


def test_a_missing_sample_is_found_by_its_trajectory(rollout: Path, tmp_path: Path) -> None:
    shutil.copytree(rollout, tmp_path / "copy")
    write(tmp_path / "copy" / "samples.jsonl", rows(rollout / "samples.jsonl")[1:])
    assert any("is missing" in line for line in violations(tmp_path / "copy"))


# ---- any single corruption ---------------------------------------------------------------------------------------------


def _bump(name: str) -> Callable[[Row, Any], None]:
    def change(row: Row, data: Any) -> None:
        at = data.draw(st.integers(0, len(row[name]) - 1), label="position")
        if name == "loss_mask":
            row[name][at] = data.draw(st.sampled_from([1 - row[name][at], 2, -1, 0.5, True, None]))
        elif name == "tokens":
            row[name][at] = data.draw(st.integers(-1, 5000).filter(lambda value: value != row[name][at]))
        else:
            values = st.floats(allow_subnormal=False) | st.just(row[name][at] - 1e-3) | st.none()
            row[name][at] = data.draw(values.filter(lambda value: value != row[name][at]))

    return change


def _drop(name: str) -> Callable[[Row, Any], None]:
    return lambda row, data: row[name].pop(data.draw(st.integers(0, len(row[name]) - 1)))


def _insert(name: str) -> Callable[[Row, Any], None]:
    return lambda row, data: row[name].insert(data.draw(st.integers(0, len(row[name]))), 0)


def _swap(row: Row, data: Any) -> None:
    values = row["rollout_log_probs"]
    pairs = [(a, b) for a in range(len(values)) for b in (a + 1,) if b < len(values) and values[a] != values[b]]
    a, b = data.draw(st.sampled_from(pairs))
    values[a], values[b] = values[b], values[a]


def _shift(row: Row, data: Any) -> None:
    row["response_length"] += data.draw(st.sampled_from([-1, 1, -row["response_length"], 10_000]))


def _segment(row: Row, data: Any) -> None:
    segment = data.draw(st.sampled_from(row["metadata"]["tau2"]["segments"]))
    name = data.draw(st.sampled_from(["start", "stop", "kind"]))
    if name == "kind":
        segment["kind"] = "context" if segment["kind"] == "sampled" else "sampled"
    else:
        segment[name] += data.draw(st.sampled_from([-1, 1]))


def _set(name: str, *values: Any) -> Callable[[Row, Any], None]:
    def change(row: Row, data: Any) -> None:
        row[name] = data.draw(st.sampled_from([value for value in values if value != row[name]]))

    return change


def _fact(name: str, *values: Any) -> Callable[[Row, Any], None]:
    def change(row: Row, data: Any) -> None:
        facts = row["metadata"]["tau2"]
        facts[name] = data.draw(st.sampled_from([value for value in values if value != facts[name]]))

    return change


CORRUPTIONS: dict[str, Callable[[Row, Any], None]] = {
    **{f"another value in {name}": _bump(name) for name in ("tokens", "loss_mask", "rollout_log_probs")},
    **{f"one less in {name}": _drop(name) for name in ("tokens", "loss_mask", "rollout_log_probs")},
    **{f"one more in {name}": _insert(name) for name in ("tokens", "loss_mask", "rollout_log_probs")},
    "two log-probs swapped": _swap,
    "response_length": _shift,
    "segments": _segment,
    "no mask": _set("loss_mask", None, []),
    "no log-probs": _set("rollout_log_probs", None, []),
    "reward": _set("reward", None, float("nan"), "1"),
    "remove_sample": lambda row, data: row.update(remove_sample=not row["remove_sample"]),
    "status": _set("status", "completed", "truncated", "aborted", "failed", "pending"),
    "official reward": _fact("official_reward", 0.25, 3.0),
    "excluded": lambda row, data: row["metadata"]["tau2"].update(excluded=not row["metadata"]["tau2"]["excluded"]),
    "blame": _fact("blame", "limit", "user", "infrastructure"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_corruption_of_a_sample_file_is_found(
    rollout: Path, tmp_path: Path, corruption: str, data: Any
) -> None:
    content = [json.loads(line) for line in _lines(rollout)]
    row = data.draw(st.sampled_from(content))
    CORRUPTIONS[corruption](row, data)
    write(tmp_path / "samples.jsonl", content)
    found = violations(tmp_path / "samples.jsonl")
    assert found
    assert any(f"sample {row['index']}" in line or "samples.jsonl:" in line for line in found)


_cache: dict[Path, list[str]] = {}


def _lines(folder: Path) -> list[str]:
    return _cache.setdefault(folder, (folder / "samples.jsonl").read_text().splitlines()[:4])


# ---- what only a fresh render can see ----------------------------------------------------------------------------------


def _true_but_for(rollout: Path, tmp_path: Path, change: Callable[[Row], None]) -> list[str]:
    """The violations of a trajectory whose numbers agree with each other, and whose history was rewritten."""
    content = rows(rollout / "trajectories.jsonl")
    change(content[-1])
    write(tmp_path / "trajectories.jsonl", content)
    (tmp_path / "summary.json").write_text(json.dumps({"embedded": True}))
    assert violations(tmp_path) == []
    return violations(tmp_path, render=True)


def test_a_prompt_token_that_the_template_did_not_write_is_drift(rollout: Path, tmp_path: Path) -> None:
    def change(row: Row) -> None:
        row["ledger"]["tokens"][17] += 1

    found = _true_but_for(rollout, tmp_path, change)
    assert len(found) == 1
    assert "token 17: the first prompt is not what the chat template writes" in found[0]


def test_a_sample_without_tokens_is_no_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompt did not fit: two tokens stand for what slime needs, and no template wrote them."""
    monkeypatch.setattr(
        "tau2_slime.policy.context_plan.longest_first_prompt", lambda *_: None
    )  # slime asks nobody beforehand
    folder = tmp_path / "short"
    jobs = plan_jobs(["mock"], None, ["create_task_1"], None, 1)
    overrides = {"user_model": "scripted"}
    asyncio.run(run(RolloutPlan(jobs=jobs, output_dir=folder, overrides=overrides, max_context_len=100)))
    (folder / "summary.json").write_text(json.dumps({"embedded": True}))
    assert len(rows(folder / "samples.jsonl")[0]["tokens"]) == 2
    assert violations(folder, render=True) == []


def test_an_appended_token_that_the_template_did_not_write_is_drift(rollout: Path, tmp_path: Path) -> None:
    position = 0

    def change(row: Row) -> None:
        nonlocal position
        position = next(s for s in row["ledger"]["segments"] if s["kind"] == "context")["start"] + 1
        row["ledger"]["tokens"][position] += 1

    found = _true_but_for(rollout, tmp_path, change)
    assert len(found) == 1
    assert f"token {position}: what was appended after the turn" in found[0]


def test_a_message_that_was_never_sampled_is_found(rollout: Path, tmp_path: Path) -> None:
    def change(row: Row) -> None:
        said = [m for m in row["messages"] if m["role"] == "assistant" and m.get("usage")][-1]
        said["content"] = "Something else."

    assert any("its message is 'Something else.'" in line for line in _true_but_for(rollout, tmp_path, change))


def test_what_the_user_said_cannot_be_changed_afterwards(rollout: Path, tmp_path: Path) -> None:
    def change(row: Row) -> None:
        next(m for m in row["messages"] if m["role"] == "user")["content"] += "!"

    assert any("not what the chat template writes" in line for line in _true_but_for(rollout, tmp_path, change))
