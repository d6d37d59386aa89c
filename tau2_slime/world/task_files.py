"""Tasks of one's own: a file of native τ² tasks as a sequence that reads a task when it is asked for it.

A file is read through once: every row is checked, and copied to an unnamed temporary file, from which tasks are parsed as
they are used. So a change of the file does not reach a run that has begun, and 100,000 tasks take some megabytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload
from weakref import WeakValueDictionary

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown, well_formed
from tau2_slime.world import tau2_compat
from tau2_slime.world.task_dialects import DATABASE, Database, NotReadable, as_tau2_has_it
from tau2_slime.world.task_rows import Row, opened, rows_of

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

_KEPT_BYTES, _KEPT_TASKS = 16 << 20, 8
"""Parsed tasks that nobody uses are kept up to so many bytes of their rows, and in any case so many tasks."""


@dataclass(frozen=True)
class Fault:
    """Why one row cannot be played."""

    where: str
    """``line 3``, or ``task 3, line 40`` in a list."""
    text: str
    task_id: str = ""
    """Empty if the row does not say it."""

    def __str__(self) -> str:
        named = f" (task {shown(self.task_id)[:80]})" if self.task_id else ""
        return f"{self.where}{named}: {shown(self.text)[:300]}"


class TaskFile(Sequence["Task"]):
    """The tasks of one file in its order. A task that is in use is one object, whoever asks for it."""

    def __init__(self, path: Path, problem: Callable[[Task], str | None] = lambda task: None) -> None:
        """Read the file through: about 0.03 ms a row.

        Args:
            path: of the file.
            problem: why a task cannot be played in its domain; None if it can.

        Raises:
            ConfigError: the file is missing, is not a file, is damaged, or has no row.
        """
        self.path, self._folder = path, path.parent
        self.faults: list[Fault] = []
        """One for each row that cannot be played, in the file's order. Such rows are not part of the sequence."""
        self.positions: dict[str, int] = {}
        """Task id -> position in the sequence."""
        self._ends = array("Q", [0])
        self._kept: OrderedDict[int, Task] = OrderedDict()
        self._kept_bytes = 0
        self._in_use: WeakValueDictionary[int, Task] = WeakValueDictionary()
        self._lock = threading.Lock()
        self._rows = tempfile.TemporaryFile(prefix="tau2_slime-tasks-")  # noqa: SIM115  # it lives as long as this object
        self._databases: dict[str, Database] = {}
        """Of the tasks that name one (`task_dialects`), each read once."""
        places = array("Q")
        found = False
        with opened(path) as file:
            for row in rows_of(file, path):
                found = True
                self._take(row, problem, places)
            self.sha256 = file.sha256()
        self._rows.flush()
        if not found:
            raise ConfigError(f"task file {path}: it holds no task")

    def _take(self, row: Row, problem: Callable[[Task], str | None], places: array[int]) -> None:
        """``places``: line and number of each task so far, for whoever has the id of one of them."""
        task_id = ""
        try:
            task = self._parsed(row.text)
            task_id = task.id
            text = _bad_id(task_id) or problem(task)
            first = self.positions.get(task_id)
            if text is None and first is not None:
                there = Row(b"", *places[2 * first : 2 * first + 2]).where
                text = f"a second task with the id of {there}; ids are unique in a file"
        except _Invalid as error:
            text, task_id = str(error), error.task_id
        if text is not None:
            self.faults.append(Fault(row.where, text, task_id))
            return
        places.extend((row.line, row.number))
        self.positions[task_id] = len(self.positions)
        self._rows.write(row.text)
        self._ends.append(self._ends[-1] + len(row.text))

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self._task(i) for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._task(position)

    def __iter__(self) -> Iterator[Task]:
        return (self._task(i) for i in range(len(self)))

    def _text(self, position: int) -> bytes:
        start, stop = self._ends[position], self._ends[position + 1]
        # Not `seek` and `read`: processes that were forked share the position of an open file.
        return b"".join(_pieces(self._rows.fileno(), start, stop))

    def _task(self, position: int) -> Task:
        with self._lock:
            task = self._kept.get(position) or self._in_use.get(position)
            if task is None:
                task = self._in_use[position] = self._parsed(self._text(position))
            if position not in self._kept:
                self._kept_bytes += self._size(position)
            self._kept[position] = task
            self._kept.move_to_end(position)
            while self._kept_bytes > _KEPT_BYTES and len(self._kept) > _KEPT_TASKS:
                oldest, _ = self._kept.popitem(last=False)
                self._kept_bytes -= self._size(oldest)
            return task

    def _parsed(self, text: bytes) -> Task:
        return _parsed(text, self._folder, self._databases)

    def _size(self, position: int) -> int:
        return self._ends[position + 1] - self._ends[position]

    def digest(self, task_id: str) -> str:
        """Twelve hexadecimal digits of the row's content: what tells whether a task has changed."""
        content = json.loads(self._text(self.positions[task_id]))
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        text += "".join(one.sha256 for name, one in self._databases.items() if name == content.get(DATABASE))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def require_no_fault(self) -> None:
        """Raises ConfigError that names the rows which cannot be played, the first ones of many."""
        if self.faults:
            rows = len(self.faults) + len(self)
            more = f"; and {len(self.faults) - 5} more" if len(self.faults) > 5 else ""
            raise ConfigError(
                f"task file {self.path}: {len(self.faults)} of {rows} tasks cannot be played: "
                f"{'; '.join(map(str, self.faults[:5]))}{more} (tau2-slime tasks check {self.path} lists all)"
            )

    def in_a_forked_child(self) -> None:
        self._lock = threading.Lock()  # the thread that held it does not exist here


def _pieces(descriptor: int, start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        piece = os.pread(descriptor, stop - start, start)
        if not piece:
            raise ConfigError("the temporary copy of a task file was cut short: is its disk full?")
        start += len(piece)
        yield piece


def domain_of_first_task(path: Path) -> str:
    """What the user's instructions of the first task name as its domain; empty if they name none.

    Raises:
        ConfigError: no task can be read.
    """
    problem = "it holds no task"
    with opened(path) as file:
        for number, row in enumerate(rows_of(file, path)):
            try:
                instructions = _parsed(row.text, path.parent, {}).user_scenario.instructions
            except _Invalid as error:
                if not number:
                    problem = f"none of its rows is a task; {Fault(row.where, str(error), error.task_id)}"
                continue
            return str(getattr(instructions, "domain", ""))
    raise ConfigError(f"task file {path}: {problem}")


class _Invalid(Exception):
    def __init__(self, text: str, task_id: str = "") -> None:
        super().__init__(text)
        self.task_id = task_id


def _parsed(text: bytes, folder: Path, databases: dict[str, Database]) -> Task:
    """Raises _Invalid, in words that do not repeat the row."""
    from pydantic import ValidationError

    try:
        content = json.loads(text)
    except UnicodeDecodeError:
        raise _Invalid("it is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
        raise _Invalid(f"it is not JSON: {said}") from None
    if not isinstance(content, dict):
        raise _Invalid(f"it is not a task but {type(content).__name__}; a task is a JSON object")
    named = str(content["id"]) if isinstance(content.get("id"), str) else ""
    try:
        task: Task = tau2_compat.load().Task.model_validate(as_tau2_has_it(content, folder, databases))
    except NotReadable as error:
        raise _Invalid(str(error), named) from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"][:8]) or "the row"
        raise _Invalid(f"it is not a task of τ²: {place}: {first['msg']}", named) from None
    except RecursionError:
        raise _Invalid("it is nested too deeply", named) from None
    return task


def _bad_id(task_id: str) -> str | None:
    if not task_id.strip():
        return "its id is empty"
    return None if well_formed(task_id) == task_id else "its id is not valid text (a lone surrogate)"
