"""A task's gold actions as a conversation that two scripts can play.

The agent makes its own gold calls, one per turn. Where gold lets the user act, the agent asks for that part, and the
scripted user makes its calls one by one. The agent's last turn says everything that the task wants communicated. Both sides
build the same `GoldScript` from the task alone, so neither needs to remember anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from tau2_slime.tokens.calls.types import Call

if TYPE_CHECKING:
    from tau2_slime.world.types import Task

DONE_TOOL = "done"
"""τ²'s tool with which a solo agent ends the episode."""

ASK_REFERENCE = "Could you please tell me your case reference?"
_DONE = "Your case is now complete."
_PART = "on your own device, part"

_REFERENCE = re.compile(r"case reference is ([^\s<>/]+)/([^\s<>/]+)/([^\s<>]+?)\.(?=[\s<]|$)")
_ASKED_PART = re.compile(re.escape(_PART) + r" (\d+):")
# Characters of an id that stay as they are in a reference. The others (white space, angle brackets) are percent-encoded.
_UNQUOTED = "[]|:_-,;=+()@!*'&$~/"


@dataclass(frozen=True)
class CaseReference:
    """The name of a task that a user can read out, such as ``retail/train/7``."""

    domain: str
    split: str
    task_id: str

    def __str__(self) -> str:
        domain, split = (
            quote(self.domain),
            quote(self.split, safe=":"),
        )  # a task file's path has slashes: they are quoted
        return f"{domain}/{split}/{quote(self.task_id, safe=_UNQUOTED)}"

    def sentence(self) -> str:
        """The words in which a user gives the reference; `find_reference` reads them."""
        return f"my case reference is {self}."


def find_reference(text: str, *, last: bool = False) -> CaseReference | None:
    """The first case reference in ``text``, or the last one; None if there is none.

    >>> find_reference("Hello, my case reference is retail/train/7. I want a refund.")
    CaseReference(domain='retail', split='train', task_id='7')
    """
    found = list(_REFERENCE.finditer(text))
    return CaseReference(*(unquote(part) for part in found[-1 if last else 0].groups())) if found else None


@dataclass(frozen=True)
class ScriptTurn:
    """One message of the scripted agent: a call, or a text."""

    kind: Literal["call", "ask", "final", "broken", "silence"]
    """``ask``: asks for a part of the user's actions. ``broken``: a call with a bracket missing. ``silence``: no text."""
    call: Call | None = None
    text: str | None = None


@dataclass(frozen=True)
class GoldScript:
    """Everything that both sides say and do in a task's gold play."""

    turns: tuple[ScriptTurn, ...]
    """The agent's messages in order. The last one ends the case."""
    user_parts: tuple[tuple[Call, ...], ...] = ()
    """The user's gold actions, in the parts in which the agent asks for them."""

    @classmethod
    def from_task(cls, task: Task, *, solo: bool = False) -> GoldScript:
        """``solo``: the agent has the user's tools too, makes every call itself, and ends with τ²'s ``done`` tool."""
        criteria = task.evaluation_criteria
        actions = list((criteria.actions if criteria is not None else None) or [])
        communicate = list((criteria.communicate_info if criteria is not None else None) or [])
        if solo:
            calls = [ScriptTurn("call", (action.name, dict(action.arguments))) for action in actions]
            return cls((*calls, ScriptTurn("call", (DONE_TOOL, {}))))
        turns: list[ScriptTurn] = []
        parts: list[list[Call]] = []
        asking = False
        for action in actions:
            call = (action.name, dict(action.arguments))
            if action.requestor != "user":
                turns.append(ScriptTurn("call", call))
                asking = False
                continue
            if not asking:
                parts.append([])
                turns.append(ScriptTurn("ask"))
                asking = True
            parts[-1].append(call)
        numbered = iter(enumerate(parts, start=1))
        turns = [
            replace(turn, text=_request_for_part(*next(numbered))) if turn.kind == "ask" else turn for turn in turns
        ]
        turns.append(ScriptTurn("final", text=_closing(communicate)))
        return cls(tuple(turns), tuple(tuple(part) for part in parts))

    def turn(self, index: int) -> ScriptTurn:
        """The agent's message number ``index``, from 0. After the end of the script it is the last message again."""
        return self.turns[min(index, len(self.turns) - 1)]

    def with_mistake(self, choice: int) -> GoldScript:
        """The same play with one mistake, in place of the agent's last step before it closes the case.

        Gold usually ends with the action that changes something, so most of these plays earn nothing.

        Args:
            choice: any integer. It picks one of: leave the step out, call an unknown tool, break the call's spelling.
        """
        at = len(self.turns) - 2
        if at < 0:
            return self
        wrong = _wrong_moves(self.turns[at])
        return replace(self, turns=(*self.turns[:at], *wrong[choice % len(wrong)], self.turns[-1]))

    def with_noise(self, share: float, draw: Callable[[str, int], float]) -> GoldScript:
        """The same play with another move in place of about ``share`` of the agent's steps before it closes the case.

        Some of these moves cost the reward and some do not. A step is left out, made twice, or made with another value for
        one argument. Or an unknown tool or a broken call comes, in place of the step or before it.

        Args:
            share: 0 to 1.
            draw: a number in [0, 1) for a word and a position in the script; it decides about everything.
        """
        turns: list[ScriptTurn] = []
        for at, step in enumerate(self.turns[:-1]):
            if draw("noise", at) >= share:
                turns.append(step)
                continue
            wrong = _wrong_moves(step)
            moves = [*wrong, *((*move, step) for move in wrong if move), (step, step), *_other_values(step)]
            turns.extend(moves[int(draw("move", at) * len(moves))])
        return replace(self, turns=(*turns, self.turns[-1]))


def _wrong_moves(step: ScriptTurn) -> list[tuple[ScriptTurn, ...]]:
    """What may come in place of ``step`` and does not do its work: nothing, an unknown tool, a broken call."""
    if step.call is None:
        return [()]
    return [(), (replace(step, call=(f"{step.call[0]}_now", step.call[1])),), (replace(step, kind="broken"),)]


def _other_values(step: ScriptTurn) -> list[tuple[ScriptTurn, ...]]:
    """``step`` with another text for one of its arguments, for each that is a text."""
    name, arguments = step.call or ("", {})
    return [
        (replace(step, call=(name, {**arguments, key: f"{value}_2"})),)
        for key, value in arguments.items()
        if isinstance(value, str)
    ]


def asked_part(text: str) -> int | None:
    """The position, from 0, of the part of the user's actions that the agent's ``text`` asks for; None for no part."""
    match = _ASKED_PART.search(text)
    return None if match is None else int(match.group(1)) - 1


def closes_case(text: str) -> bool:
    """True if the agent's ``text`` says that the case is complete."""
    return _DONE in text


def _request_for_part(number: int, part: list[Call]) -> str:
    steps = ", then ".join(name.replace("_", " ") for name, _ in part)
    return f"I need you to do something {_PART} {number}: please {steps}. Tell me when you are done."


def _closing(communicate: list[str]) -> str:
    # τ² looks for each string in one message from which it removes the commas: one string a line, exactly as it is.
    lines = "".join(f"\n- {info}" for info in communicate)
    return f"{_DONE} Here is what you should know:{lines}" if communicate else f"{_DONE} Thank you for your patience."
