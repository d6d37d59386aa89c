"""`write_atomically`: a reader sees the old file or the new one, whoever else writes and whatever fails."""

from __future__ import annotations

import multiprocessing
import resource
import threading
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import append_line, check_output, hold_folder, new_run_folder, write_atomically

SIZE = 300_000


def write_often(path: Path, letter: str) -> None:
    for _ in range(60):
        write_atomically(path, letter * SIZE)


def whole(text: str) -> bool:
    return len(text) == SIZE and len(set(text)) == 1


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_two_writers_at_once_never_mix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    write_atomically(path, "z" * SIZE)
    start = multiprocessing.get_context("spawn").Process if kind == "processes" else threading.Thread
    writers: list[SpawnProcess | threading.Thread] = [start(target=write_often, args=(path, x)) for x in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert whole(text)
        seen.add(text[0])
    for writer in writers:
        writer.join()
        assert getattr(writer, "exitcode", 0) == 0
    assert seen & {"a", "b"}
    assert path.read_text()[0] in "ab"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # stands in for a full disk
    try:
        with pytest.raises(OSError):
            write_atomically(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failure_between_two_parts_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def parts() -> Iterator[str]:
        yield "new"
        raise KeyboardInterrupt

    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, parts())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_text_is_utf8_and_parts_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in ("τ² \n", "τ² \n".encode(), iter(["τ", "² ", "\n"])):
        write_atomically(path, content)
        assert path.read_bytes() == "τ² \n".encode()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", "x")


def test_a_line_that_does_not_fit_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    append_line(path, "first")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            append_line(path, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    append_line(path, "second")
    assert path.read_text() == "first\nsecond\n"


# ---- folders of runs ---------------------------------------------------------------------------------------------------


def test_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "one"
    with hold_folder(folder, "rollout"):
        (folder / "file").touch()
        with pytest.raises(ConfigError, match="another rollout is writing"), hold_folder(folder, "rollout"):
            pass
    with hold_folder(folder, "rollout"):  # it was let go
        pass
    assert (folder / "file").exists()


def test_a_folder_that_nothing_was_written_to_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ValueError), hold_folder(tmp_path / "runs" / "one", "rollout"):
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with hold_folder(tmp_path, "rollout"):
        pass
    assert tmp_path.is_dir()


@pytest.mark.parametrize("place", ["file/run", "/proc/run"])
def test_where_nothing_can_be_written_is_said_in_a_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"), hold_folder(tmp_path / place, "rollout"):
        pass


def test_two_runs_of_one_second_have_two_names() -> None:
    assert len({new_run_folder("eval") for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("mark", "what"), [("manifest.json", "rollout"), ("rollout.json", "evaluation"), ("rollout.json", "synth")]
)
def test_a_folder_with_a_run_of_another_kind_is_refused(tmp_path: Path, mark: str, what: str) -> None:
    (tmp_path / mark).write_text("{}")
    with (
        pytest.raises(ConfigError, match=f"holds another run .*by its {mark}.: name another"),
        hold_folder(tmp_path, what),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [mark]


def test_an_output_that_would_replace_what_is_read_is_refused(tmp_path: Path) -> None:
    run, tasks = tmp_path / "run", tmp_path / "mine.json"
    run.mkdir()
    for path in (tasks, run / "samples.jsonl", run / "report.jsonl"):
        path.write_text("")
    check_output("--html", tmp_path / "page.html", [run, tasks])
    check_output("--jsonl", run / "report.jsonl", [run])
    check_output("--jsonl", None, [run])
    for wrong, words in (
        (run, "that is a folder"),
        (tasks, "that is what is read"),
        (run / "samples.jsonl", "that is what is read"),
        (tasks / "below", "mine.json is not a folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_output("--report", wrong, [run, tasks])
