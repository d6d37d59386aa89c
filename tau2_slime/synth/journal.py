"""What survives a kill: every accepted and rejected proposal of a run. A run that finds a journal goes on after it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError


class Journal:
    """The events of a run as JSON lines, flushed one by one; what was there is read first."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if the file holds anything else. A last line that was cut off is dropped."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        complete, _, rest = text.rpartition("\n")
        for number, line in enumerate(complete.split("\n") if complete else (), start=1):
            try:
                row = json.loads(line)
                row["key"], row["task"]
            except (ValueError, KeyError, TypeError):
                raise ConfigError(
                    f"{path}: line {number} is not one of a synth run; give another --output-dir"
                ) from None
            self.rows.append(row)
        if rest:
            path.write_text(complete + "\n" if complete else "", encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Write one event down; after this line a kill does not lose it."""
        self._file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
        self._file.flush()
        self.rows.append(row)

    def close(self) -> None:
        self._file.close()
