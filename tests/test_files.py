"""`write_atomically`: a reader sees the old file or the new one, whoever else writes and whatever fails."""

from __future__ import annotations

import multiprocessing
import resource
import threading
from collections.abc import Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from tau2_slime.runtime.files import write_atomically

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
