"""The conversations that a person left in the middle: kept beside a run's episodes, and taken up by the same command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.files import write_atomically
from tau2_slime.slime_adapter.sample import StandaloneSample, is_interrupted


class Unfinished:
    """``unfinished.json`` of a run's folder: an episode's name -> its interrupted sample. Not there if there is none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "unfinished.json"

    def take(self, name: str) -> StandaloneSample | None:
        """What was left of the episode ``name``; None if nothing was. It stays in the file until `keep` says more.

        Raises:
            ConfigError: the file is damaged.
        """
        row = self._read().get(name)
        if row is None:
            return None
        try:
            return StandaloneSample.of_row(row)
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged() from error

    def keep(self, name: str, sample: StandaloneSample) -> None:
        """Keep ``sample`` if it was interrupted; otherwise the episode is over, and what was left of it goes.

        Raises:
            ConfigError: the file is damaged.
            OSError: it cannot be written.
        """
        rows = self._read()
        before = rows.pop(name, None)
        if is_interrupted(sample):
            rows[name] = sample.row()
        elif before is None:
            return
        if rows:
            write_atomically(self._path, json.dumps(rows, ensure_ascii=False, default=str) + "\n")
        else:
            self._path.unlink()

    def _read(self) -> dict[str, Any]:
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise self._damaged() from error
        if not isinstance(rows, dict):
            raise self._damaged()
        return rows

    def _damaged(self) -> ConfigError:
        return ConfigError(f"{self._path} is damaged: delete it, and its conversations begin anew")
