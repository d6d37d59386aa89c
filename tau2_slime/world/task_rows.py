"""The rows of a task file: JSON (a list of tasks, or ``{"tasks": [...]}``) or JSONL, plain or gzip, each with its place.

Nothing here looks into a row. Lines are read one after another; a list is in memory as text, never as objects.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from tau2_slime.errors import ConfigError

MOST_BYTES = 8 << 30
"""Of a file, unpacked."""
_BLANK = b" \t\r\n"


class Row(NamedTuple):
    text: bytes
    """Its JSON, as far as it is JSON."""
    line: int
    """In which it begins, from 1."""
    number: int = 0
    """From 1, in a list."""

    @property
    def where(self) -> str:
        """``line 3``, or ``task 3, line 40`` in a list."""
        return f"task {self.number}, line {self.line}" if self.number else f"line {self.line}"


def rows_of(file: TaskBytes, path: Path) -> Iterator[Row]:
    """The rows of a list, of an object or of lines, whichever the file holds; its name does not matter."""
    begins = file.beginning().lstrip(_BLANK)[:1]
    if begins == b"[" or (begins == b"{" and _is_one_object(file, path)):
        yield from _rows_of_document(file.rest(), path)
        return
    for number, line in file.lines():
        if text := line.strip(_BLANK):
            yield Row(text, number)


def _is_one_object(file: TaskBytes, path: Path) -> bool:
    line, more = file.first_line()
    try:
        json.loads(line)
    except (ValueError, RecursionError):  # it goes on in the next line, or it is damaged
        return path.name.endswith((".json", ".json.gz"))
    return not more


def _rows_of_document(data: bytes, path: Path) -> Iterator[Row]:
    """Each task of a JSON list, of the list under ``tasks``, or the one task that the document is."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"task file {path} is not UTF-8 text") from None
    at = _start_of_list(text)
    if at is None:
        yield Row(data.strip(_BLANK), 1 + data.count(b"\n", 0, len(data) - len(data.lstrip(_BLANK))))
        return
    decoder, number, line, counted = json.JSONDecoder(), 0, 1, 0
    while True:
        at = _after_blanks(text, at)
        if text[at : at + 1] == "]":
            after = _after_blanks(text, at + 1)
            if text[after : after + 1] not in ("", "}", ","):  # the last two: of the object that has the list
                number = 1 + text.count("\n", 0, after)
                raise ConfigError(f"task file {path}, line {number}: something follows the end of the list of tasks")
            return
        number, line, counted = number + 1, line + text.count("\n", counted, at), at
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            where = f"task {number}, line {line}"
            raise ConfigError(f"task file {path}: {where}: the list is not JSON from here on: {said}") from None
        row = Row(text[at:end].encode("utf-8", "surrogatepass"), line, number)
        yield row
        at = _after_blanks(text, end)
        if text[at : at + 1] not in (",", "]"):
            raise ConfigError(f"task file {path}: {row.where}: a comma or the end of the list must follow this task")
        at += text[at] == ","


def _start_of_list(text: str) -> int | None:
    """Where the first task of the list may stand; None if the document is one object without a list of ``tasks``."""
    at = _after_blanks(text, 0)
    if text[at : at + 1] == "[":
        return at + 1
    try:
        content, key = json.loads(text), text.find('"tasks"')
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("tasks"), list) or "user_scenario" in content:
        return None
    return text.index("[", key) + 1


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at


# ---- bytes ----------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[TaskBytes]:
    """A task file that is being read.

    Raises:
        ConfigError: it is missing, is not a file, or turns out to be damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"task file {path} is not a file: give a JSON or JSONL file of tasks")
        with path.open("rb") as raw:
            yield TaskBytes(raw)
    except FileNotFoundError:
        raise ConfigError(
            f"task file {path} is missing: a relative path counts from the file that names it, or from the working directory"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ConfigError(f"task file {path}: its gzip data is damaged or cut short") from None
    except _TooLarge:
        raise ConfigError(f"task file {path}: more than {MOST_BYTES >> 30} GB unpacked") from None
    except OSError as error:
        raise ConfigError(f"task file {path}: {error.strerror or error}") from None


class _TooLarge(Exception):
    pass


class _Hashing:
    """A binary file whose bytes are hashed as they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


class TaskBytes:
    """The bytes of a file, unpacked and counted."""

    def __init__(self, raw: IO[bytes]) -> None:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        self._raw = _Hashing(raw)
        self._file: gzip.GzipFile | _Hashing = (
            gzip.GzipFile(fileobj=cast("IO[bytes]", self._raw)) if packed else self._raw
        )
        self._left, self._begun = MOST_BYTES, b""

    def first_line(self) -> tuple[bytes, bool]:
        """The first line that is not blank, and whether something follows it. What reads on begins with it, too."""
        pieces = [self.beginning()]
        line_ends = b"\n" in pieces[0].lstrip(_BLANK)
        while not line_ends and (data := self._next()):
            pieces.append(data)
            line_ends = b"\n" in data
        self._begun = b"".join(pieces)
        line, _, rest = self._begun.lstrip(_BLANK).partition(b"\n")
        while not rest.strip(_BLANK) and (data := self._next()):
            self._begun, rest = self._begun + data, data
        return line, bool(rest.strip(_BLANK))

    def beginning(self) -> bytes:
        """Bytes with the beginning of the first line that is not blank."""
        while not self._begun.strip(_BLANK + codecs.BOM_UTF8) and (data := self._next()):
            self._begun += data
        self._begun = self._begun.removeprefix(codecs.BOM_UTF8)
        return self._begun

    def rest(self) -> bytes:
        return self._begun + b"".join(iter(self._next, b""))

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(number from 1, line)."""
        number, pending = 0, [self._begun]
        for data in iter(self._next, b""):
            pending.append(data)
            if b"\n" in data:
                *lines, last = b"".join(pending).split(b"\n")
                for line in lines:
                    number += 1
                    yield number, line
                pending = [last]
        for line in b"".join(pending).split(b"\n"):
            number += 1
            yield number, line

    def sha256(self) -> str:
        """Of the file as it is on disk."""
        for _ in iter(lambda: self._raw.read(1 << 20), b""):
            pass
        return self._raw.hash.hexdigest()

    def _next(self) -> bytes:
        data = self._file.read(1 << 20)
        self._left -= len(data)
        if self._left < 0:
            raise _TooLarge
        return data
