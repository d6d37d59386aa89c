"""The conversations of a person that are not over: kept beside a run's episodes after each message, and taken up by the
same command, whatever ended the process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tau2_slime.config.settings import HUMAN
from tau2_slime.episode.play import so_far
from tau2_slime.errors import ConfigError
from tau2_slime.observe.rollout_folder import SAMPLES
from tau2_slime.runtime.files import RUNS, is_held, json_lines, write_atomically
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup
    from tau2_slime.tokens.template.chat_template import ChatTemplate

FILE = "unfinished.json"


class Follow(Protocol):
    """`Unfinished.follow` for one episode."""

    def __call__(
        self, setup: EpisodeSetup, sample: StandaloneSample, template: ChatTemplate | None = None, /
    ) -> None: ...


class Unfinished:
    """``unfinished.json`` of a run's folder: an episode's name -> its interrupted sample. Not there if there is none."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def take(self, name: str) -> StandaloneSample | None:
        """What was left of the episode ``name``; None if nothing was. It stays in the file until `drop`.

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

    def follow(
        self, name: str, setup: EpisodeSetup, sample: StandaloneSample, template: ChatTemplate | None = None
    ) -> None:
        """Keep the episode that ``setup`` plays after each of its hops, if a person is its user.

        ``sample`` is the episode's and stays as it is. ``template`` decodes its tokens, where it has some.
        """
        if setup.user_strategy != HUMAN:
            return

        def keep() -> None:
            rows = self._read()
            rows[name] = fill_sample(dataclasses.replace(sample), so_far(setup), template=template).row()
            self._write(rows)

        setup.after_hop = keep

    def drop(self, names: Iterable[str]) -> None:
        """Forget the episodes ``names``, once they are recorded elsewhere.

        Raises:
            ConfigError: the file is damaged.
            OSError: it cannot be written.
        """
        rows, over = self._read(), set(names)
        if not rows.keys().isdisjoint(over):
            self._write({name: row for name, row in rows.items() if name not in over})

    def _write(self, rows: dict[str, Any]) -> None:
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


def left_beside(folder: Path) -> str:
    """A line that names the conversations of a person that were left in folders like ``folder``, which is a new one.

    Empty if there are none, or if ``folder`` has a name that was chosen.
    """
    kind = folder.name.partition("-")[0]
    if folder.parent != RUNS:
        return ""
    left = [one for one in sorted(RUNS.glob(f"{kind}-*")) if one != folder and _was_left(one) and not is_held(one)]
    if not left:
        return ""
    named = ", ".join(map(str, left[-3:])) + (f" and {len(left) - 3} older" if len(left) > 3 else "")
    return f"left in the middle: {named}; it goes on with its own command and --output-dir {left[-1]}"


def _was_left(folder: Path) -> bool:
    played = next(iter(json_lines(folder / SAMPLES)), None) if folder.name.startswith("play-") else None
    return (folder / FILE).exists() or (played or {}).get("status") == "aborted"
