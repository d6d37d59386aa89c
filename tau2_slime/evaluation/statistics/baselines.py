"""What policies that solve nothing score: doing nothing, and transferring to a human at once.

τ² pays both on some tasks, so a score means something only beside theirs. They are really played and really scored, task by
task, and remembered in the user's cache folder for the installed τ² and its task files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.files import source_hashes
from tau2_slime.episode.agents import agent_factory
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.transcript import Transcript
from tau2_slime.evaluation.plan.datasets import Item
from tau2_slime.evaluation.store.manifest import tau2_version
from tau2_slime.local.gold import DONE_TOOL
from tau2_slime.outcome import SUCCESS
from tau2_slime.tokens.calls.parsers.checks import parsed_call
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.users import UserStats

NOTHING, TRANSFER = "do_nothing", "transfer_at_once"
KINDS = (NOTHING, TRANSFER)
TRANSFER_TOOL = "transfer_to_human_agents"
_VERSION = 1


class IdleSpeaker:
    """Says one sentence for ever; or transfers first. In solo mode it is done at once, text being an error there."""

    def __init__(self, kind: str, *, solo: bool = False) -> None:
        self.kind, self.solo = kind, solo

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _IdleTranscript(self, tools)


class _IdleTranscript(Transcript):
    def __init__(self, speaker: IdleSpeaker, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._transfers, self._solo = speaker.kind == TRANSFER, speaker.solo

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        self.chat += messages
        self.turns += 1
        if self._transfers and self.turns == 1:
            return self._calls(TRANSFER_TOOL, '{"summary": "The user asks for help."}')
        if self._solo:
            return self._calls(DONE_TOOL, "{}")
        if self._transfers:
            return ParsedTurn("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.", None)
        return ParsedTurn("I am afraid that there is nothing I can do.", None)

    def _calls(self, name: str, arguments: str) -> ParsedTurn:
        return ParsedTurn(None, None, [parsed_call(name, arguments, self.tools)])


class LeavingUser:
    """Asks for help, and leaves at the first answer; does nothing on its own device."""

    def __init__(self) -> None:
        self.stats = UserStats()
        self._asked = False

    def start(self, history: list[Any]) -> None:
        self._asked = any(message.role == "user" for message in history)

    async def reply(self, message: Any) -> Any:
        text = "###STOP###" if self._asked else "Hello, I need some help."
        self._asked = True
        return tau2_compat.load().UserMessage(role="user", content=text, cost=0.0)


async def baseline(config: Tau2Config, task: Any, kind: str) -> float | None:
    """The reward of one degenerate policy on ``task``; None if τ² cannot score it without a judge, or not at all."""
    solo = config.agent_type == "solo"
    if scoring.needs_judge(task):
        return None
    world = await domains.new_world(config.domain, config.task_split, task, solo=solo, env_kwargs=config.env_kwargs)
    if kind == TRANSFER and all(tool.name != TRANSFER_TOOL for tool in world.agent_tools):
        return await baseline(config, task, NOTHING)  # no one to transfer to
    try:
        agent = agent_factory("solo" if solo else "llm", world, IdleSpeaker(kind, solo=solo))
    except ValueError:  # a task without a ticket has no solo play, whoever plays
        return None
    result = await agent.asolve(None if solo else LeavingUser(), Limits())
    return result.reward


async def baselines(
    items: Iterable[Item],
    *,
    cache: Path | None = None,
    on_scored: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float | None]]:
    """Item name -> kind -> reward. Each task is played once ever; ``cache``: folder, by default the user's own."""
    by_task = {_without_repeat(item.name): item for item in items}
    books: dict[str, _Book] = {}
    out: dict[str, dict[str, float | None]] = {}
    missing = []
    for name, item in by_task.items():
        book = books.setdefault(_identity(item.config), _Book(item.config, cache))
        for kind in KINDS:
            known, value = book.get(name, kind)
            if known:
                out.setdefault(name, {})[kind] = value
            else:
                missing.append((name, item, kind, book))
    try:
        for done, (name, item, kind, book) in enumerate(missing):
            on_scored(done, len(missing))
            config = item.config
            task = domains.find_task(config.domain, config.task_split, task_id=item.task_id)
            value = await baseline(config, task, kind)
            book.put(name, kind, value)
            out.setdefault(name, {})[kind] = value
    finally:
        for book in books.values():
            book.save()
    return out


def _without_repeat(name: str) -> str:
    return name.partition("#")[0]


def mean(names: Iterable[str], known: Mapping[str, Mapping[str, float | None]], kind: str) -> float | None:
    """The share of the tasks that the degenerate policy solves, of those that it could be scored on; None if of none."""
    values = [known.get(_without_repeat(name), {}).get(kind) for name in names]
    scored = [value for value in values if value is not None]
    return fmean(value >= SUCCESS for value in scored) if scored else None


class _Book:
    """The cache file of one domain."""

    def __init__(self, config: Tau2Config, cache: Path | None) -> None:
        root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tau2_slime" / "baselines"
        self._path = root / f"{config.domain}-{_identity(config)[:16]}.json"
        self._dirty = False
        try:
            self._values: dict[str, Any] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            self._values = {}

    def get(self, name: str, kind: str) -> tuple[bool, float | None]:
        value = self._values.get(f"{name} {kind}", "?")
        return value != "?", None if value == "?" else value

    def put(self, name: str, kind: str, value: float | None) -> None:
        self._values[f"{name} {kind}"] = value
        self._dirty = True

    def save(self) -> None:
        if not self._dirty:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self._values, indent=1, sort_keys=True))
            temporary.replace(self._path)
        except OSError:  # a cache that cannot be written is no reason to lose a score
            pass


def _identity(config: Tau2Config) -> str:
    """What a cached value depends on beside the task."""
    facts = [_VERSION, tau2_version(), source_hashes(config.domain), config.agent_type == "solo", config.env_kwargs]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
