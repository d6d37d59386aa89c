"""The one reader of a chat completion: text or parts, thoughts, calls, its ending, its bill, and what goes back.

Every speaker behind a chat endpoint is read here: the user simulators (asked directly or through litellm), a policy behind
an API, the judge; and, message by message, what verifiers hands over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from tau2_slime.chat.faults import CallFailed, Fault, UnusableMessage, of_error_body
from tau2_slime.chat.thoughts import cut_thoughts
from tau2_slime.runtime.http import check_depth
from tau2_slime.runtime.text import well_formed_value

T = TypeVar("T")

MAX_CALLS = 128
"""Tool calls of one message."""
_MOST_TOKENS = 10**9


class Ending(StrEnum):
    """How a message ended, whatever the provider calls it."""

    WHOLE = "whole"
    CUT = "cut"
    """At a limit of tokens: what is there is a beginning."""
    FILTERED = "filtered"
    """The provider took the rest, or all of it."""
    FAILED = "failed"
    """The server stopped in the middle."""


_CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded")
_FILTERED = (
    *("content_filter", "content_filtered", "sensitive", "refusal", "guardrail_intervened"),
    *("safety", "recitation", "blocklist", "prohibited_content", "spii"),
)
_FAILED = ("error", "abort", "network_error", "insufficient_system_resource")
_ENDINGS = {
    **dict.fromkeys(_CUT, Ending.CUT),
    **dict.fromkeys(_FILTERED, Ending.FILTERED),
    **dict.fromkeys(_FAILED, Ending.FAILED),
}
"""Finish reasons in small letters; every other one, and none at all, is the end of a whole message."""


@dataclass(frozen=True)
class Usage:
    """What the endpoint counted; zeros if it names nothing."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class RequestedCall:
    """A tool call as the model wrote it."""

    id: str
    name: str
    arguments: str
    """JSON, if the model got it right."""

    def values(self) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            CallFailed: they are not a JSON object, nor the text of one.
        """
        try:
            value = json.loads(self.arguments)
            if isinstance(value, str):  # encoded twice
                value = json.loads(value)
            check_depth(value)
        except (ValueError, RecursionError) as error:
            raise CallFailed(Fault.GARBAGE, f"arguments of tool {self.name!r} that are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise CallFailed(Fault.GARBAGE, f"arguments of tool {self.name!r} that are not a JSON object")
        return well_formed_value(value)


@dataclass(frozen=True)
class Said:
    """One message of a model, its text fit for UTF-8."""

    content: str | None
    """The words that the other side may hear; None if the message has none."""
    thoughts: str | None = None
    """Set apart by the server, or cut off from the words."""
    calls: tuple[RequestedCall, ...] = ()
    aloud: bool = False
    """The thoughts stood in the text."""
    unclosed: bool = False
    """The text ends inside the thoughts."""


@dataclass(frozen=True)
class Completion:
    """One answer of a model."""

    said: Said
    ending: Ending = Ending.WHOLE
    usage: Usage = Usage()
    raw: Mapping[str, Any] | None = None
    """The answer's one choice, as it came; None if there is none."""
    cost: float = 0.0
    """US dollars, as far as litellm knows the price."""


def read_completion(answer: object, *, cost: float = 0.0) -> Completion:
    """The first choice of a chat completion in OpenAI's form, parsed from JSON.

    Raises:
        CallFailed: it is not one, or an error came in its place. Where it has a bill, that is in ``billed``.
    """
    whole = _mended(answer, "the answer")
    choices = _expect(whole.get("choices") or [], list, "choices")
    error = whole.get("error") or whole.get("errors") or (_error_without_a_name(whole) if not choices else None)
    if error:
        raise of_error_body(error)
    billed = Completion(Said(None), usage=_read_usage(whole.get("usage")), cost=cost)
    if not choices:  # an answer, with its bill, that says nothing
        return billed
    try:
        return _read_choice(choices[0], billed)
    except CallFailed as failed:
        if billed.usage != Usage() or cost:
            failed.billed = billed
        raise


def _read_choice(given: object, billed: Completion) -> Completion:
    choice = _expect(given, dict, "a choice")
    if choice.get("error"):
        raise of_error_body(choice["error"])
    reason = _expect(choice.get("finish_reason"), (str, type(None)), "finish_reason")
    ending = _ENDINGS.get((reason or "").lower(), Ending.WHOLE)
    message = choice.get("message")
    if message is None and ending is Ending.FILTERED:
        message = {}
    said = read_message(_expect(message, dict, "a message"))
    return replace(billed, said=said, ending=ending, raw=choice)


def read_message(message: Mapping[str, Any]) -> Said:
    """An assistant's message in OpenAI's form.

    Raises:
        CallFailed: it has another form, or something in it cannot be shown.
    """
    message = _mended(message, "a message")
    content, apart = _read_content(message.get("content"))
    for name in ("reasoning_content", "reasoning", "thinking"):
        if not apart and isinstance(message.get(name), str):
            apart = message[name]
    if content is None and isinstance(message.get("refusal"), str):
        content = message["refusal"] or None
    spoken = cut_thoughts(content) if content else None
    calls = _expect(message.get("tool_calls") or [], list, "tool_calls")
    if not calls and message.get("function_call"):  # the older form, with one call
        calls = [{"function": message["function_call"]}]
    if len(calls) > MAX_CALLS:
        raise UnusableMessage(f"a message with {len(calls):,} tool calls, more than {MAX_CALLS}")
    return Said(
        content=spoken.words if spoken else content,
        thoughts=apart or (spoken.thoughts if spoken else None),
        calls=tuple(_read_call(call) for call in calls),
        aloud=spoken is not None and spoken.thoughts is not None,
        unclosed=spoken is not None and spoken.unclosed,
    )


# ---- what goes back to the endpoint --------------------------------------------------------------------------------------

_PROVIDERS_OWN = (
    *("reasoning_content", "reasoning", "reasoning_details", "thinking_blocks"),
    *("extra_content", "provider_specific_fields", "thought_signature", "thought_signatures", "signature"),
)
"""What a provider may want back with a message. The rest (``refusal``, ``audio``, ...) describes the reply."""


def message_to_send_back(message: Mapping[str, Any]) -> dict[str, Any]:
    """The server's message for the next request: its text, reasoning and calls exactly as they came."""
    kept = {name: message[name] for name in ("content", "tool_calls") if message.get(name) is not None}
    return {"role": "assistant", "content": None, **kept, **providers_own(message)}


def providers_own(message: Mapping[str, Any]) -> dict[str, Any]:
    """What of the server's message belongs to the provider alone: nobody else reads it, and it goes back unchanged."""
    found = {name: message[name] for name in _PROVIDERS_OWN if message.get(name)}
    fields = found.get("provider_specific_fields")  # litellm's, where it also repeats what stands beside it
    if isinstance(fields, dict) and not any(fields[name] for name in set(fields) - {"refusal", "reasoning_content"}):
        del found["provider_specific_fields"]
    return found


def with_providers_own(message: dict[str, Any], came: Mapping[str, Any]) -> dict[str, Any]:
    """``message``, which stands for what ``came`` in a conversation that is sent again, with the provider's own data.

    Of a call goes back what neither of the two forms names, such as Gemini's ``extra_content`` with a thought's signature.
    """
    out = {**message, **providers_own(came)}
    sent, given = message.get("tool_calls"), came.get("tool_calls")
    if isinstance(sent, list) and isinstance(given, list) and len(sent) == len(given):
        out["tool_calls"] = [
            {**{name: value for name, value in theirs.items() if value is not None and name != "index"}, **ours}
            for ours, theirs in zip(sent, given, strict=True)
        ]
    return out


# ---- parts of a message --------------------------------------------------------------------------------------------------


def _read_content(content: object) -> tuple[str | None, str | None]:
    """(text, thoughts that were set apart) of a message's ``content``: a text, or a list of parts.

    Raises:
        CallFailed: a part that cannot be shown as text.
    """
    if content is None or isinstance(content, str):
        return content, None
    texts: list[str] = []
    thoughts: list[str] = []
    for part in _expect(content, list, "a message's content"):
        if isinstance(part, str):
            texts.append(part)
            continue
        whole = _expect(part, dict, "a part of a message")
        kind = str(whole.get("type") or ("text" if "text" in whole else "nothing"))
        if kind in ("text", "output_text", "refusal"):
            value = whole.get("text") if kind != "refusal" else whole.get("refusal")
            texts.append(_expect(value or "", str, "a part's text"))
        elif kind in ("thinking", "reasoning", "redacted_thinking", "reasoning_content"):
            inner = whole.get("thinking") or whole.get("text") or whole.get("reasoning") or ""
            thoughts.append(inner if isinstance(inner, str) else _read_content(inner)[0] or "")
        else:
            raise UnusableMessage(f"a message with a part of type {kind!r}, which cannot be shown as text")
    return "".join(texts) or None, "".join(thoughts) or None


def _read_call(call: object) -> RequestedCall:
    whole = _expect(call, dict, "a tool call")
    function = _expect(whole.get("function"), dict, "a tool call's function")
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, dict):  # parsed already, as some servers send it
        arguments = json.dumps(arguments, ensure_ascii=False)
    return RequestedCall(
        id=_expect(whole.get("id") or "", str, "a tool call's id"),
        name=_expect(function.get("name"), str, "a tool's name"),
        arguments=_expect(arguments, str, "a tool call's arguments"),
    )


def _error_without_a_name(whole: Mapping[str, Any]) -> object:
    """An error body that is not under ``error``, as FastAPI, vLLM and MiniMax write it; None if this is none."""
    base = whole.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return base
    if whole.get("object") == "error" or "detail" in whole or ("message" in whole and "usage" not in whole):
        return whole
    return None


def _read_usage(usage: object) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    return Usage(*(_read_count(counts.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")))


def _read_count(count: object) -> int:
    if isinstance(count, str) and count.isdecimal() and len(count) < 10:  # some endpoints write it so
        count = int(count)
    number = _expect(count, (int, float), "a number of tokens")
    if not 0 <= number <= _MOST_TOKENS:  # true of NaN as well
        raise CallFailed(Fault.GARBAGE, f"a number of tokens is {number}")
    return int(number)


def _mended(value: object, what: str) -> dict[str, Any]:
    whole = _expect(value, dict, what)
    try:
        check_depth(whole)
    except ValueError as error:
        raise CallFailed(Fault.GARBAGE, f"an answer that cannot be read: {error}") from error
    return well_formed_value(whole)


def _expect(value: object, kind: type[T] | tuple[type[T], ...], what: str) -> T:
    """``value``, if it is of ``kind``; `CallFailed` otherwise."""
    if isinstance(value, kind):
        return value
    raise CallFailed(Fault.GARBAGE, f"{what} is {type(value).__name__}: {str(value)[:10_000]}")
