"""Files that are there whole or not at all, whatever happens while they are written; and folders that one process holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from tau2_slime.errors import ConfigError


def write_atomically(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Replace ``path`` by ``content`` in one step, synced to the disk; text becomes UTF-8, halves of surrogate pairs "?".

    ``content`` may be an iterable of texts, so that a large file never is in memory as a whole. Several threads and
    processes may write the same path at the same time: the last one wins, and no reader sees a mixture.

    Raises:
        OSError: the folder is missing, or the disk is full. Then ``path`` is as it was, and nothing else is left behind;
            the same holds for whatever the iterable raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            for part in [content] if isinstance(content, str | bytes) else content:
                file.write(part.encode("utf-8", "replace") if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # Ctrl-C too: nothing half-written stays behind
        temporary.unlink(missing_ok=True)
        raise


_OF_A_RUN = {
    *("samples.jsonl", "trajectories.jsonl", "simulations.jsonl", "episodes.jsonl", "costs.jsonl", "journal.jsonl"),
    *("manifest.json", "rollout.json", "summary.json", "results.json", "baselines.json", "unfinished.json"),
}
"""Files that runs keep in their folders: no report may be written over one."""


def check_output(option: str, path: Path | None, inputs: Iterable[Path] = ()) -> None:
    """Nothing, if ``option`` can write its file to ``path``, as far as that is known before the work; None: it is not given.

    Raises:
        ConfigError: it is a folder, its folder is a file, or it is one of ``inputs``, or a file of a run in one of them.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path}: that is a folder; name a file")
    if path.parent.exists() and not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: {path.parent} is not a folder")
    for read in inputs if path.exists() else ():
        within = read.is_dir() and path.resolve().parent == read.resolve() and path.name in _OF_A_RUN
        if within or (read.exists() and path.samefile(read)):
            raise ConfigError(f"{option} {path}: that is what is read; name another file")


def append_line(path: Path, line: str, *, synced: bool = True) -> None:
    """Add ``line`` and a line break to ``path``, and wait until both are on the disk unless ``synced`` is False.

    Raises:
        OSError: it cannot be written. Then nothing of it is in the file.
    """
    data = (line + "\n").encode("utf-8", "replace")
    with path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:]) or 0
            if synced:
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def ends_with_a_whole_line(path: Path) -> bool:
    """False if the end of ``path`` is half a line, as a kill leaves one. A file that is missing or empty has no such end."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON objects of ``path``, one a line; None for each line that is none. Nothing for a file that is not there."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError):
                row = None
            yield row if isinstance(row, dict) else None


# ---- folders of runs ---------------------------------------------------------------------------------------------------


RUNS = Path("runs")
"""Where a run is kept that was given no folder."""


def new_run_folder(kind: str) -> Path:
    """A name below ``runs`` that no other run has, also not one that is started in the same second. It is not made here."""
    return RUNS / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


_MARKS = {"evaluation": "manifest.json", "rollout": "rollout.json", "synth": "journal.jsonl"}
"""Kind of a run -> a file that only its folder has. Each of the other kinds would write over its summary."""


@contextlib.contextmanager
def hold_folder(folder: Path, what: str) -> Iterator[None]:
    """Make ``folder`` if need be, and let no other process write into it for as long as the context lasts.

    Args:
        folder: it gets a file ``.lock``, which stays; a process that is killed lets go of it.
        what: what the other process would be, for the message, such as ``rollout``.

    Raises:
        ConfigError: another process holds it, it has a run of another kind, or nothing can be written there.
    """
    for kind, mark in _MARKS.items() if what in _MARKS else ():
        if kind != what and (folder / mark).exists():
            raise ConfigError(f"{folder} holds another run ({kind}, by its {mark}): name another --output-dir")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        lock = _locked(folder)
    except BlockingIOError:
        raise ConfigError(f"another {what} is writing to {folder}: wait for it, or stop it") from None
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror or error}; name another --output-dir"
        ) from error
    with lock:
        try:
            yield
        finally:
            # Nothing was written: the folder goes as it came, for example after a mistake in the command line.
            if made and [path.name for path in folder.iterdir()] == [_LOCK]:
                (folder / _LOCK).unlink()
                with contextlib.suppress(OSError):
                    for path in made:
                        path.rmdir()


def is_held(folder: Path) -> bool:
    """True if a process holds ``folder`` now."""
    try:
        with (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it cannot be asked
        return False
    return False


_LOCK = ".lock"


def _locked(folder: Path) -> IO[str]:
    """The open lock of ``folder``, which is made if need be."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), (folder / _LOCK).stat()):
                    return lock
        except BaseException:  # held by another process, or Ctrl-C: the open file must not outlive the attempt
            lock.close()
            raise
        lock.close()  # whoever held it has just removed the file: this one locks nothing
