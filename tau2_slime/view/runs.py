"""Paths -> rows, and again whenever their files have grown; and any one episode in full.

A file of JSON lines is read on from where it ended last time, in whole lines. A dump, or τ²'s results, is read again when it
has changed. Nothing that cannot be read stops the others: `Runs.problems` says what it was.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tau2_slime.errors import ConfigError
from tau2_slime.inspector.found import FoundEpisodes
from tau2_slime.inspector.rows import EpisodeRow, number_in, row_of, words_of
from tau2_slime.inspector.sources import NotAnEpisode, from_line, read_checkpoint, read_file
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.view.run_files import found_files, with_words

PROBLEMS = 20
"""Problems that are kept of one file; the others are counted."""
OPEN_FILES = 2
"""Dumps whose episodes are kept in memory as a whole, because their reader may open another one."""
BATCH = 64
"""Lines that are read before readers may look."""


class Vanished(Exception):
    """Why an episode cannot be opened any more."""


@dataclass
class _File:
    """What is known of one file."""

    path: Path
    run: str
    """What the reader calls the run that it belongs to."""
    state: tuple[int, int, int] = (0, 0, 0)
    """Inode, size and time of the last look."""
    read: int = 0
    """Bytes of whole lines that were read."""
    lines: int = 0
    problems: list[str] = field(default_factory=list)
    more: int = 0

    def complain(self, line: str) -> None:
        if len(self.problems) < PROBLEMS:
            self.problems.append(line)
        else:
            self.more += 1


@dataclass(frozen=True)
class _Place:
    """Where an episode stands."""

    file: _File
    start: int
    """First byte of its line; of a dump its position."""
    stop: int = -1
    where: str = ""


class Runs:
    """The episodes of some paths. One thread calls `refresh`; any thread may read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._runs: list[str] = []
        """Runs in the order in which they were found."""
        self.lock = threading.Lock()
        """Held while rows are added."""
        self._opening = threading.Lock()
        """Held while dumps are opened or forgotten."""
        self.rows: list[EpisodeRow] = []
        self.words: list[bytes] = []
        self.generation = 0
        """Grows when rows that were there are gone: then everything is to be read again."""
        self.checkpoint: str | None = None
        self.embedded = False
        self._places: list[_Place] = []
        self._files: dict[Path, _File] = {}
        self._names: set[str] = set()
        self._steps: dict[str, int] = {}
        self._path_problems: list[str] = []
        self._opened: OrderedDict[Path, tuple[tuple[int, int, int], list[Trajectory]]] = OrderedDict()
        self._advance: Callable[[], None] = lambda: None
        self.strategies: set[str] = set()

    @property
    def title(self) -> str:
        return ", ".join(map(str, self._paths))

    @property
    def problems(self) -> list[str]:
        """A line for everything that could not be read."""
        out = list(self._path_problems)
        for file in list(self._files.values()):
            out += file.problems
            if file.more:
                out.append(f"{file.path}: and {file.more} more")
        return out

    def refresh(self, advance: Callable[[], None] = lambda: None) -> None:
        """Read what is new; ``advance`` is called now and then while that lasts."""
        self._advance = advance
        found, problems = found_files(self._paths)
        gone = [file for path, file in self._files.items() if path not in found]
        for file in gone:
            if with_words(file.path) in found:  # a rollout's other file has come, which has the same episodes
                self._forget(file)
                del self._files[file.path]
        self._path_problems = problems + [f"{file.path}: no longer there" for file in gone if file.lines]
        self._place({*self._runs, *found.values()})
        for path, run in found.items():
            file = self._files.setdefault(path, _File(path, run))
            try:
                self._look(file)
            except OSError as error:
                file.problems = [f"{path}: {error.strerror or error}"]

    def look(self) -> None:
        """Nothing, if every path has files to read.

        Raises:
            ConfigError: one has none; the message says what can be read.
        """
        _, problems = found_files(self._paths)
        if problems:
            raise ConfigError(problems[0])

    def open(self, number: int) -> Trajectory:
        """The episode of `rows` [number] in full.

        Raises:
            Vanished: its file is gone, or is another one now.
            IndexError: there is none of that number.
        """
        place, name = self._places[number], self.rows[number].name
        try:
            if place.stop >= 0:
                with place.file.path.open("rb") as opened:
                    opened.seek(place.start)
                    row = json.loads(opened.read(place.stop - place.start))
                one = from_line(row, place.where)
            else:
                with self._opening:
                    one = self._whole(place.file)[place.start]
        except OSError as error:
            raise Vanished(f"{place.file.path}: {error.strerror or error}") from error
        except (ValueError, IndexError, ConfigError, RecursionError) as error:
            raise Vanished(f"{place.file.path}: it is not the file that was read before ({error})") from error
        one.name = name
        return one

    def found(self) -> FoundEpisodes:
        """What is known of the tokenizer, without the episodes."""
        return FoundEpisodes(checkpoint=self.checkpoint, embedded=self.embedded, strategies=self.strategies)

    # ---- files ---------------------------------------------------------------------------------------------------------

    def _look(self, file: _File) -> None:
        stat = file.path.stat()
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if state == file.state:
            return
        lines = file.path.suffix == ".jsonl"
        if file.lines and (not lines or state[0] != file.state[0] or state[1] < file.read):
            self._forget(file)
        file.state = state
        self._find_checkpoint(file)
        if lines:
            self._read_on(file)
            return
        file.problems, file.more = [], 0
        found = FoundEpisodes()
        try:
            read_file(file.path, found)
        except ConfigError as error:
            file.complain(str(error))
            return
        for line in found.unreadable:
            file.complain(f"{file.path}: {line}")
        self.checkpoint = self.checkpoint or found.checkpoint
        with self._opening:
            self._opened[file.path] = (state, found.trajectories)
            self._keep_few()
        file.lines = len(found.trajectories)
        self._add(file, [(one, _Place(file, position)) for position, one in enumerate(found.trajectories)])

    def _read_on(self, file: _File) -> None:
        batch: list[tuple[Trajectory, _Place]] = []
        half = ""
        for start, stop, raw in _lines(file.path, file.read):
            where = f"{file.path.name}:{file.lines + 1}"
            if not raw.endswith(b"\n"):
                half = f"{where}: half a line at the end: it is still being written, or its writer was killed"
                break
            file.read, file.lines = stop, file.lines + 1
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
                if not isinstance(row, dict):
                    raise NotAnEpisode(f"{where}: not an episode, but {type(row).__name__}")
                batch.append((from_line(row, where), _Place(file, start, stop, where)))
            except NotAnEpisode as error:
                file.complain(str(error))
            except (ValueError, RecursionError) as error:
                file.complain(f"{where}: not JSON ({error})")
            if len(batch) >= BATCH:
                self._add(file, batch)
                batch = []
        self._add(file, batch)
        file.problems = [line for line in file.problems if "half a line" not in line] + ([half] if half else [])

    def _add(self, file: _File, episodes: Sequence[tuple[Trajectory, _Place]]) -> None:
        made = [(self._row(one, file.run), words_of(one), place) for one, place in episodes]
        self.strategies |= {one.agent_strategy for one, _ in episodes}
        with self.lock:
            for row, words, place in made:
                self.rows.append(row)
                self.words.append(words)
                self._places.append(place)
        self._advance()

    def _row(self, one: Trajectory, run: str) -> EpisodeRow:
        several = len(self._runs) > 1
        name = f"{run}/{one.name}" if several else one.name
        if name in self._names:
            name = f"{name}@{len(self._names)}"
        self._names.add(name)
        if one.step is not None:
            series = " ".join(filter(None, (run if several else "", one.kind)))
            return row_of(one, name=name, run=run, series=series, step=one.step)
        row = row_of(one, name=name, run=run, series=one.dataset or "all episodes", step=self._steps[run])
        row.stepless = True
        return row

    def _place(self, runs: set[str]) -> None:
        """Where runs without steps stand on the curve: at the numbers in their names, or one after the other."""
        if runs == {*self._runs}:
            return
        self._runs += sorted(runs - {*self._runs})
        numbers = {run: number_in(run) for run in self._runs}
        if len(self._runs) == 1 or len({*numbers.values()} - {None}) < len(numbers):
            numbers = {run: place for place, run in enumerate(self._runs, 1)}
        self._steps = {run: number or 0 for run, number in numbers.items()}
        with self.lock:
            for row in self.rows:
                if row.stepless and row.step != self._steps[row.run]:
                    row.step = self._steps[row.run]
                    self.generation += 1

    def _forget(self, file: _File) -> None:
        """The file is another one now: take its episodes out."""
        with self.lock:
            kept = [i for i, place in enumerate(self._places) if place.file is not file]
            self._names -= {row.name for i, row in enumerate(self.rows) if self._places[i].file is file}
            self.rows, self.words, self._places = (
                [self.rows[i] for i in kept],
                [self.words[i] for i in kept],
                [self._places[i] for i in kept],
            )
            self.generation += 1
        file.read, file.lines, file.problems, file.more = 0, 0, [], 0

    # ---- parts ---------------------------------------------------------------------------------------------------------

    def _whole(self, file: _File) -> list[Trajectory]:
        stat = file.path.stat()
        state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._opened.get(file.path)
        if known is None or known[0] != state:
            if state != file.state:
                raise Vanished(f"{file.path}: it has been written again; it is read anew in a moment")
            found = FoundEpisodes()
            read_file(file.path, found)
            known = self._opened[file.path] = (state, found.trajectories)
        self._opened.move_to_end(file.path)
        self._keep_few()
        return known[1]

    def _keep_few(self) -> None:
        while len(self._opened) > OPEN_FILES:
            self._opened.popitem(last=False)

    def _find_checkpoint(self, file: _File) -> None:
        if file.path.suffix == ".jsonl":
            found = self.found()
            read_checkpoint(file.path.parent, found)
            self.checkpoint, self.embedded = found.checkpoint, found.embedded


def _lines(path: Path, start: int) -> Iterator[tuple[int, int, bytes]]:
    """First byte, byte behind, and content of each line from ``start`` on."""
    with path.open("rb") as opened:
        opened.seek(start)
        for raw in opened:
            yield start, start + len(raw), raw
            start += len(raw)
