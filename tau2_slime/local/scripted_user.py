"""A user without a model: gives its case reference, does its part of the gold actions, and stops when the case is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.local.gold import CaseReference, GoldScript, asked_part, closes_case
from tau2_slime.world import tau2_compat
from tau2_slime.world.users import UserStats

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.types import Call
    from tau2_slime.world.types import Message, Task, ToolMessage, UserMessage

MAX_FRUITLESS = 3
"""Replies in a row that change nothing; after them the user hangs up."""

STOP, TRANSFER = "###STOP###", "###TRANSFER###"
_MAX_STORY = 600
"""Characters."""

STYLES = {"scripted": "plain", "scripted-terse": "terse", "scripted-chatty": "chatty"}
"""Names of the user simulators that need no model, and how they speak: ``plain`` tells its story with the reference,
``terse`` gives the reference only, ``chatty`` begins with small talk."""


def style_of(model: str) -> str:
    """The style of the scripted user that is called ``model``.

    Raises:
        ConfigError: no such user exists.
    """
    if model not in STYLES:
        raise ConfigError(f"user_model={model!r} is unknown; users without a model are: {', '.join(STYLES)}")
    return STYLES[model]


class ScriptedUser:
    """Plays the user's side of a task's `GoldScript`; a `world.users.User`.

    With an agent that follows no script it says what it wants, repeats its case reference when it does not understand, and
    hangs up after `MAX_FRUITLESS` such replies. It raises nothing, and it always comes to an end.
    """

    def __init__(self, task: Task, domain: str, split: str, style: str = "plain") -> None:
        """``style``: a value of `STYLES`."""
        self.stats = UserStats()
        self.reference = CaseReference(domain, split, task.id)
        self._story = "" if style == "terse" else f"\n{_story(task)}"
        self._small_talk = style == "chatty"
        self._parts = list(GoldScript.from_task(task).user_parts)
        self._done_parts: set[int] = set()
        self._queue: deque[Call] = deque()
        self._introduced = False
        self._fruitless = 0
        self._calls = 0

    def start(self, history: Sequence[Message]) -> None:
        """Take over after ``history``. What was said and done there is not said and done again."""
        for message in history:
            if message.role == "assistant":
                self._queue_asked_part(message.content or "")
            elif message.role == "user":
                self._introduced = True
                for _ in message.tool_calls or []:
                    self._calls += 1
                    if self._queue:
                        self._queue.popleft()

    async def reply(self, message: Message) -> UserMessage:
        """The next message after the agent's text or the result of the user's own call. It makes one call at a time."""
        self.stats.calls += 1
        if message.role == "tool":
            if self._queue:
                return self._act()
            self._fruitless = 0
            return self._say(f"I have done that. It says: {_result_text(message)}")
        text = message.content or ""
        if closes_case(text):
            return self._say(STOP)
        if "TRANSFERRED TO A HUMAN AGENT" in text.upper():
            return self._say(TRANSFER)
        if self._queue_asked_part(text):
            return self._act()
        if self._small_talk and not self._introduced:
            self._small_talk = False
            return self._say("Good day! I hope that you are well. I would like your help with something.")
        if not self._introduced:
            self._introduced = True
            return self._say(f"Hello, {self.reference.sentence()}{self._story}")
        self._fruitless += 1
        if self._fruitless > MAX_FRUITLESS:
            return self._say(STOP)
        return self._say(f"Yes, please go ahead; {self.reference.sentence()}{self._story}")

    def _queue_asked_part(self, text: str) -> bool:
        """Queue the part of the actions that the agent's ``text`` asks for; False if it asks for none, or for a done one."""
        part = asked_part(text)
        if part is None or part >= len(self._parts) or part in self._done_parts:
            return False
        self._done_parts.add(part)
        self._queue.extend(self._parts[part])
        return True

    def _act(self) -> UserMessage:
        """The next queued action, as a tool call of the user's own."""
        t = tau2_compat.load()
        name, arguments = self._queue.popleft()
        self._calls += 1
        call = t.ToolCall(id=f"user_call_{self._calls}", name=name, arguments=dict(arguments), requestor="user")
        return t.UserMessage(role="user", content=None, tool_calls=[call], cost=0.0)

    def _say(self, text: str) -> UserMessage:
        return tau2_compat.load().UserMessage(role="user", content=text, cost=0.0)


def _story(task: Task) -> str:
    """Why the user calls and what it knows, in the task's own words, on one line."""
    instructions = task.user_scenario.instructions
    if isinstance(instructions, str):
        words = instructions
    else:
        words = " ".join(filter(None, (instructions.reason_for_call, instructions.known_info)))
    flat = " ".join(words.split())
    return flat if len(flat) <= _MAX_STORY else flat[:_MAX_STORY].rsplit(" ", 1)[0] + " …"


def _result_text(message: ToolMessage) -> str:
    # A tool's text must not hold one of τ²'s stop words, which would end the episode.
    return " ".join((message.content or "nothing").split()).replace("###", "")[:_MAX_STORY]
