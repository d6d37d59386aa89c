"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Replace ``path`` by ``content`` in one step, synced to the disk; text becomes UTF-8.

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
                file.write(part.encode() if isinstance(part, str) else part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
