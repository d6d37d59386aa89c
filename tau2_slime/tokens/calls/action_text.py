"""Actions in plain text, for checkpoints whose chat template knows no tools: the formats ``act`` and ``react``.

The tools stand in the system prompt. The model writes ``Action:`` and one JSON object; to talk to the user is an action too.
The result of a call comes back as a user message. So a chat template needs nothing but turns of a user and an assistant.
`action_format` finds a format by its name; `in_format` writes a conversation in its form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.dotted_path import load_object
from tau2_slime.runtime.text import well_formed
from tau2_slime.tokens.calls.action_reading import cut_reasoning, first_marker, joined, object_in, read_action
from tau2_slime.tokens.calls.json_text import BadJson
from tau2_slime.tokens.calls.reasoning import without_reasoning
from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.types import Call, CallStatus, JsonObject, ParsedCall, ParsedTurn, Tool, ToolCallParser

NATIVE = "native"
"""Not one of these formats: the chat template's own tool calls."""
RESPOND = "respond"
"""The action that talks to the user."""
RESULT = "API output:"
"""What a message with the result of a call begins with."""

_THOUGHT = "Thought:"

ChatMessage = dict[str, Any]


@runtime_checkable
class ActionFormat(ToolCallParser, Protocol):
    """How a policy is told its tools, acts, and is told the results, in text alone.

    A class of your own with these members is chosen by its dotted path, ``agent_strategy: my.module.MyFormat``. It is called
    with ``solo=True`` for episodes without a user, else with ``solo=False``. Subclass `TextActions` to change a part.
    """

    form: str
    """The part of `instructions` that is the same for all tools. The embedded policy knows the format by it."""

    def instructions(self, tools: list[Tool]) -> str:
        """What follows τ²'s system prompt: the tools and how to use them."""
        ...

    def say(self, text: str) -> str:
        """The turn that a model writes to tell the user ``text``; `parse` reads it back."""
        ...

    def result(self, content: str) -> str:
        """The user message that tells what a call returned. An error's ``content`` begins with ``Error:``."""
        ...


class TextActions:
    """``Action:`` and one JSON object, after a thought if `thinks`. What cannot be read as exactly that is not executed."""

    def __init__(self, name: str = "act", *, thinks: bool = False, solo: bool = False) -> None:
        """``thinks``: each turn begins with ``Thought:``. ``solo``: there is no user to respond to."""
        self.name, self.thinks, self.solo = name, thinks, solo
        action = self.format([("<name of the tool>", {"<name of an argument>": "<its value>"})])
        respond = (
            ""
            if solo
            else f"\nTo talk to the user, respond:\n\n{self._example(self.say('Your order is on its way.'))}\n"
        )
        first = " Think first, in a few words, then act. Nobody but you reads the thought." if thinks else ""
        self.form = (
            "Each of your messages is one action: the line `Action:` and exactly one JSON object, with nothing after it."
            f"{first} To use a tool:\n\n{self._example(action)}\n{respond}\nWhat a tool returns comes back in a message "
            f"that begins with `{RESULT}`. Never write such a message yourself."
        )

    def _example(self, action: str) -> str:
        return f"{_THOUGHT} <what you think>\n{action}" if self.thinks else action

    # ---- what is told ------------------------------------------------------------------------------------------------

    def instructions(self, tools: list[Tool]) -> str:
        schemas = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return f"# Tools\n\nOne JSON schema a line:\n{schemas}\n\n# Actions\n\n{self.form}"

    def result(self, content: str) -> str:
        return f"{RESULT} {content}"

    # ---- what is said ------------------------------------------------------------------------------------------------

    def format(self, calls: list[Call]) -> str:
        return "\n".join(
            f"Action:\n{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}"
            for name, arguments in calls
        )

    def say(self, text: str) -> str:
        return self.format([(RESPOND, {"content": text})])

    def parse(self, text: str, tools: list[Tool], *, reasoning_open: bool = False) -> ParsedTurn:
        thoughts, rest, unclosed = cut_reasoning(text, reasoning_open)
        if unclosed:
            return ParsedTurn(None, joined(thoughts), reasoning_unclosed=True)
        rest = rest.rstrip()
        rest = (
            rest.removesuffix(RESULT).rstrip() if rest.endswith(RESULT) else rest
        )  # a stop string, which ends the turn
        marker = first_marker(rest)
        if marker is not None:
            said, inside = without_reasoning(rest[: marker.start()].lstrip().removeprefix(_THOUGHT))
            content, calls = self._act(rest[marker.start() :], rest[marker.end() :], tools)
            return ParsedTurn(content, joined([*thoughts, *inside, *said]), calls)
        if object_in(rest) is not None:
            content, calls = self._act(rest, rest, tools)
            return ParsedTurn(content, joined(thoughts), calls)
        said, inside = without_reasoning(rest)
        talk = joined(said)
        if self.thinks and talk is not None and talk.startswith(_THOUGHT):
            return ParsedTurn(None, joined(thoughts), [self._bad(rest, "A thought alone reaches nobody")])
        return ParsedTurn(talk, joined([*thoughts, *inside]))

    def _act(self, raw: str, body: str, tools: list[Tool]) -> tuple[str | None, list[ParsedCall]]:
        """(what is said to the user, the call): one of the two is empty. ``body`` is what stands behind the marker."""
        try:
            name, arguments = read_action(body)
            if name == RESPOND and not self.solo:
                return _words(arguments), []
        except BadJson as problem:
            return None, [self._bad(raw, str(problem))]
        return None, [checked_call(name, arguments, tools, raw)]

    def _bad(self, raw: str, problem: str) -> ParsedCall:
        error = (
            f"{problem}. Write the line `Action:` and exactly one JSON object, "
            '{"name": "...", "arguments": {...}}, with nothing after it.'
        )
        return ParsedCall("", {}, CallStatus.INVALID_JSON, raw, error)


class Act(TextActions):
    """``act``: the action alone."""

    def __init__(self, *, solo: bool = False) -> None:
        super().__init__("act", solo=solo)


class React(TextActions):
    """``react``: a thought, then the action."""

    def __init__(self, *, solo: bool = False) -> None:
        super().__init__("react", thinks=True, solo=solo)


FORMATS: Mapping[str, type[TextActions]] = {"act": Act, "react": React}

_known: dict[tuple[str, bool], ActionFormat] = {
    (name, solo): build(solo=solo) for name, build in FORMATS.items() for solo in (False, True)
}


def action_format(name: str, *, solo: bool = False) -> ActionFormat | None:
    """The format that the setting ``agent_strategy`` names; None for ``native``. One object for the process.

    Raises:
        ConfigError: there is none of that name, or what the dotted path names is not a format.
    """
    if name == NATIVE:
        return None
    if (name, solo) not in _known:
        _known[name, solo] = _own_format(name, solo)
    return _known[name, solo]


def format_told_in(prompt: str) -> ActionFormat | None:
    """The format, of those that this process has used, whose instructions stand in the system prompt ``prompt``."""
    return next((known for known in _known.values() if known.form in prompt), None)


def _own_format(name: str, solo: bool) -> ActionFormat:
    if "." not in name:
        choices = ", ".join([NATIVE, *FORMATS])
        raise ConfigError(f"agent_strategy {name!r} is unknown; there are: {choices}, or the dotted path of your own")
    found = load_object(name, what="agent_strategy")
    try:
        made = found(solo=solo) if isinstance(found, type) else found
    except Exception as error:  # the user's class may raise anything
        raise ConfigError(
            f"agent_strategy {name!r}: the class is called with solo={solo}, and that raises {type(error).__name__}: {error}"
        ) from error
    if not isinstance(made, ActionFormat):
        lacking = [
            m for m in ("name", "form", "parse", "format", "instructions", "say", "result") if not hasattr(made, m)
        ]
        raise ConfigError(
            f"agent_strategy {name!r} is not an action format: it lacks {', '.join(lacking)}; "
            "tau2_slime.tokens.calls.action_text.ActionFormat says what a format has"
        )
    made.name = name
    return made


def in_format(actions: ActionFormat | None, messages: Sequence[ChatMessage], tools: list[Tool]) -> list[ChatMessage]:
    """``messages`` as the model is shown them. Without ``actions``: as they are.

    The system prompt gets the instructions. What the agent says before the user speaks (τ²'s greeting) goes there too: many
    templates refuse a conversation that the assistant begins. Roles alternate: results of one turn share a message.
    """
    if actions is None:
        return list(messages)
    out: list[ChatMessage] = []
    for message in messages:
        role, content = message["role"], message.get("content") or ""
        if role == "system":
            content = f"{content}\n\n{actions.instructions(tools)}"
        elif role == "tool":
            role, content = "user", actions.result(content)
            if out and out[-1]["role"] == "user":
                out[-1]["content"] += f"\n{content}"
                continue
        elif role == "assistant":
            calls = [
                (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or []
            ]
            if not calls and [one["role"] for one in out] == ["system"]:
                out[0]["content"] += f'\n\nYou have already said: "{content}"'
                continue
            content = actions.format(calls) if calls else actions.say(content)
        out.append({"role": role, "content": content})
    return out


def _words(arguments: JsonObject) -> str:
    """What a respond says. Raises BadJson."""
    content = arguments.get("content")
    if not isinstance(content, str) or not content.strip() or len(arguments) > 1:
        raise BadJson(f'{RESPOND} takes {{"content": "..."}}, a text that is not empty, and nothing else')
    return well_formed(content)  # half a surrogate pair is not text: nobody could be told it
