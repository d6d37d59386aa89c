"""Paths become rows, and stay rows while their files grow, break, are written again or vanish."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tau2_slime.cli.view import view
from tau2_slime.diagnosis.decide import key_of
from tau2_slime.errors import ConfigError
from tau2_slime.inspector.rows import number_in, says
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.view.runs import Runs, Vanished
from tests.view.runs_on_disk import ROLLOUT, lines, samples, write_dump, write_lines

pytestmark = pytest.mark.fast


def read(*paths: Path) -> Runs:
    runs = Runs(paths)
    runs.refresh()
    return runs


def test_a_rollout_has_a_row_for_each_episode_and_opens_it() -> None:
    runs = read(ROLLOUT)
    written = lines()
    assert runs.problems == []
    assert [row.name for row in runs.rows] == [str(line["index"]) for line in written]
    assert [row.reward for row in runs.rows] == [line["reward"] for line in written]
    for number, line in enumerate(written):
        one = runs.open(number)
        assert one.messages == line["messages"]
        assert list(one.tokens) == line["ledger"]["tokens"]
        assert says(runs.words[number], line["messages"][1]["content"][3:40].upper())
        assert not says(runs.words[number], "never said by anybody")


def test_a_growing_file_is_read_on_in_whole_lines(tmp_path: Path) -> None:
    file, written = tmp_path / "trajectories.jsonl", lines()
    write_lines(file, written[:1])
    runs = read(tmp_path)
    whole = json.dumps(written[1]) + "\n"
    with file.open("a") as opened:
        opened.write(whole[:500])
    runs.refresh()
    assert len(runs.rows) == 1
    (problem,) = runs.problems
    assert "trajectories.jsonl:2: half a line" in problem
    with file.open("a") as opened:
        opened.write(whole[500:] + "nonsense\n" + json.dumps(written[2]) + "\n")
    runs.refresh()
    assert [row.name for row in runs.rows] == [str(line["index"]) for line in written[:3]]
    assert runs.open(2).messages == written[2]["messages"]
    (problem,) = runs.problems
    assert "trajectories.jsonl:3: not JSON" in problem
    assert runs.generation == 0


def test_a_file_that_was_written_again_is_read_anew(tmp_path: Path) -> None:
    """A rollout that goes on leaves out what failed."""
    file, written = tmp_path / "trajectories.jsonl", lines()
    write_lines(file, written)
    runs = read(tmp_path)
    new = tmp_path / "new"
    write_lines(new, written[2:])
    new.replace(file)
    runs.refresh()
    assert [row.name for row in runs.rows] == [str(line["index"]) for line in written[2:]]
    assert runs.generation > 0
    assert runs.open(1).messages == written[3]["messages"]


def test_a_rollout_that_has_just_begun_has_each_episode_once(tmp_path: Path) -> None:
    """Its first file may be there before its second one."""
    shutil.copy(ROLLOUT / "samples.jsonl", tmp_path)
    runs = read(tmp_path)
    assert len(runs.rows) == 4
    shutil.copy(ROLLOUT / "trajectories.jsonl", tmp_path)
    runs.refresh()
    assert [row.name for row in runs.rows] == [str(line["index"]) for line in lines()]
    assert runs.problems == []
    assert runs.open(0).messages == lines()[0]["messages"]


def test_dumps_have_steps_kinds_and_groups(tmp_path: Path) -> None:
    for name, step in (("9", 9), ("10", 10), ("eval_10", 10)):
        write_dump(tmp_path / "rollout_data" / f"{name}.pt", samples(step=step, version=str(step)))
    runs = read(tmp_path)
    assert runs.problems == []
    assert [(row.series, row.step) for row in runs.rows[::4]] == [("train", 9), ("train", 10), ("eval", 10)]
    assert {row.group for row in runs.rows[:4]} == {"9"}
    assert set(runs.rows[4].versions) == {"10"}
    assert len({row.name for row in runs.rows}) == 12
    assert runs.open(11).messages == samples()[3]["metadata"]["tau2_trajectory"]["messages"]


def test_a_damaged_dump_is_named_and_read_once_it_is_whole(tmp_path: Path) -> None:
    write_dump(tmp_path / "0.pt", samples())
    write_dump(tmp_path / "1.pt", samples(step=1))
    whole = (tmp_path / "1.pt").read_bytes()
    (tmp_path / "1.pt").write_bytes(whole[: len(whole) // 2])
    runs = read(tmp_path)
    assert {row.step for row in runs.rows} == {0}
    (problem,) = runs.problems
    assert f"{tmp_path / '1.pt'}: not a file of slime's" in problem
    (tmp_path / "1.pt").write_bytes(whole)
    runs.refresh()
    assert {row.step for row in runs.rows} == {0, 1}
    assert runs.problems == []


def test_a_folder_that_vanishes_leaves_its_rows_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(ROLLOUT, folder)
    runs = read(folder)
    shutil.rmtree(folder)
    runs.refresh()
    assert len(runs.rows) == 4
    assert any("no such file or folder" in line for line in runs.problems)
    with pytest.raises(Vanished, match="No such file"):
        runs.open(0)


def test_runs_without_steps_stand_at_the_numbers_in_their_names(tmp_path: Path) -> None:
    for name in ("eval-iter_0000100", "eval-iter_0000020"):
        shutil.copytree(ROLLOUT, tmp_path / name)
    runs = read(tmp_path)
    assert {(row.run, row.step) for row in runs.rows} == {("eval-iter_0000100", 100), ("eval-iter_0000020", 20)}
    shutil.copytree(ROLLOUT, tmp_path / "best")
    runs.refresh()
    assert {row.run: row.step for row in runs.rows} == {"eval-iter_0000020": 1, "eval-iter_0000100": 2, "best": 3}
    assert len({row.name for row in runs.rows}) == 12


@pytest.mark.parametrize(
    ("name", "number"),
    [("step-20", 20), ("eval_7", 7), ("rollout-20260101-120000-ab12cd", None), ("best", None), ("v2-iter_300", 300)],
)
def test_the_number_in_a_name(name: str, number: int | None) -> None:
    assert number_in(name) == number


# ---- what cannot be shown ----------------------------------------------------------------------------------------------


def refused(*paths: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as raised:
        view(list(paths), **options)  # type: ignore[arg-type]
    return str(raised.value)


def test_what_is_no_run_gets_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    assert "nowhere: no such file or folder" in refused(tmp_path / "nowhere")
    assert "empty: no episodes in this folder; give" in refused(tmp_path / "empty")
    assert "notes.txt: not a kind of file that holds episodes" in refused(tmp_path / "notes.txt")
    assert "--follow would change nothing" in refused(ROLLOUT, html=tmp_path / "x.html", follow=True)
    assert f"--html {tmp_path}" in refused(ROLLOUT, html=tmp_path, replay=False)


def test_datasets_with_a_slash_in_their_names_are_several(tmp_path: Path) -> None:
    named = [
        {**line, "dataset": dataset, "item": f"mock/{line['task_id']}", "attempt": at, "messages": line["messages"]}
        for at, dataset in enumerate(("mock/one", "mock/other"))
        for line in lines()[:2]
    ]
    write_lines(tmp_path / "simulations.jsonl", named)
    assert {row.series for row in read(tmp_path).rows} == {"mock/one", "mock/other"}
    keys = {key_of(one, "run") for one in read_episodes(tmp_path).trajectories}
    assert {key.dataset for key in keys} == {"mock/one", "mock/other"}
