"""An episode as the rules read it: who said what, which calls were made, and what came back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.policy_rules.rules import Violation

STOPS = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
TRANSFER = "transfer_to_human_agents"


@dataclass
class Made:
    """A tool call that was made."""

    turn: int
    """Index of its message."""
    requestor: str
    """assistant or user."""
    name: str
    arguments: dict[str, Any]
    reached: bool
    """False if it never got to the environment."""
    error: bool
    """The result is an error."""
    result: str | None
    """None if the file has no result of it."""
    result_turn: int | None = None
    writes: bool = False
    """It is a call of a tool that changes something."""
    effective: bool = False
    """It changes something, got there, and was not refused."""
    touched: frozenset[str] = frozenset()
    """Records that it changed, as ``table.id``."""
    violations: tuple[Violation, ...] = ()
    """Rules of the policy that it breaks."""


@dataclass(frozen=True)
class Said:
    """A text that the other side was shown."""

    turn: int
    role: str
    """assistant or user."""
    text: str

    @property
    def stops(self) -> bool:
        return self.role == "user" and any(stop in self.text for stop in STOPS)


@dataclass
class Story:
    """The episode without its tokens."""

    messages: Sequence[Mapping[str, Any]]
    said: list[Said] = field(default_factory=list)
    calls: list[Made] = field(default_factory=list)

    @property
    def last(self) -> int:
        """Index of the last message."""
        return len(self.messages) - 1

    def texts(self, role: str, *, before: int | None = None, after: int = -1) -> list[Said]:
        """What ``role`` said in messages after ``after`` and before ``before``."""
        end = len(self.messages) if before is None else before
        return [one for one in self.said if one.role == role and after < one.turn < end]

    def last_text(self, role: str, *, before: int) -> Said | None:
        """What ``role`` said last before the message ``before``."""
        return next((one for one in reversed(self.said) if one.role == role and one.turn < before), None)

    def stop(self) -> Said | None:
        """The user's last words, if they end the conversation."""
        last = self.said[-1] if self.said else None
        return last if last is not None and last.stops else None

    def closing(self) -> int:
        """Index of the agent's first text after the last call of either side: where it takes the case for closed."""
        if not self.calls:
            last = self.last_text("assistant", before=len(self.messages))
            return last.turn if last is not None else self.last
        texts = self.texts("assistant", after=max(call.turn for call in self.calls))
        return texts[0].turn if texts else self.last


def read_story(trajectory: Trajectory) -> Story:
    """The story of ``trajectory``; results are matched to calls by id, then by their order."""
    story = Story([_readable(message) for message in trajectory.messages])
    waiting: list[tuple[str, Made]] = []
    for turn, message in enumerate(story.messages):
        role, text = str(message.get("role") or ""), message.get("content")
        calls = message.get("tool_calls") or []
        if role in ("assistant", "user") and isinstance(text, str) and text.strip() and not calls:
            story.said.append(Said(turn, role, text))
        for position, call in enumerate(calls):
            arguments = _arguments(call.get("arguments"))
            made = Made(
                turn=turn,
                requestor="user" if role == "user" else "assistant",
                name=str(call.get("name") or ""),
                arguments=arguments,
                reached=position not in trajectory.rejected.get(turn, []),
                error=False,
                result=None,
            )
            story.calls.append(made)
            waiting.append((str(call.get("id") or ""), made))
        if role == "tool" and waiting:
            name = str(message.get("id") or message.get("tool_call_id") or "")
            at = next((i for i, (known, _) in enumerate(waiting) if known == name), 0)
            _, made = waiting.pop(at)
            made.result, made.error, made.result_turn = str(text or ""), bool(message.get("error")), turn
    return story


def _readable(message: object) -> Mapping[str, Any]:
    """``message`` as it is; without what is not a call, and empty if it is not a message: files can be damaged."""
    if not isinstance(message, Mapping):
        return {}
    calls = message.get("tool_calls")
    if not calls or (isinstance(calls, list) and all(isinstance(call, Mapping) for call in calls)):
        return message
    kept = [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return {**message, "tool_calls": kept}


def _arguments(value: object) -> dict[str, Any]:
    """A call's arguments; some files hold them as JSON text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, Mapping) else {}
