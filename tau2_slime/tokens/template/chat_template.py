"""The checkpoint's own chat template, rendered to text and encoded.

`ChatTemplate` wraps a transformers tokenizer (4.57 or 5.x). It uses the template unmodified. It chooses only the shape of
the messages that go in (`MessageShape`) and the keyword arguments, which stay fixed for the life of the object; and it
knows which tokens end a turn (`stop_tokens.py`).
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tau2_slime.tokens.template.stop_tokens import known_turn_tokens

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

ChatMessage = Mapping[str, Any]
"""A message as OpenAI's chat completions have it: "role", "content", "tool_calls", "tool_call_id", "name"."""
Tools = Sequence[Mapping[str, Any]] | None
"""OpenAI function schemas."""

KEEP_THINKING_ARGUMENTS: dict[str, bool] = {
    "clear_thinking": False,
    "preserve_thinking": True,
    "truncate_history_thinking": False,
}
"""Template arguments that decide whether the thinking of earlier turns stays, and the value that keeps it."""


class TemplateError(ValueError):
    """The chat template cannot be used token-exactly; `problem` is a short code, `detail` says what to do."""

    def __init__(self, problem: str, detail: str) -> None:
        super().__init__(f"{problem}: {detail}")
        self.problem = problem
        self.detail = detail

    def __reduce__(self) -> tuple[type[TemplateError], tuple[str, str]]:
        return type(self), (self.problem, self.detail)


@dataclass(frozen=True)
class MessageShape:
    """How this template wants a tool-calling assistant message; calibration settles it."""

    string_arguments: bool = False
    """Pass `arguments` as a JSON string; else as a dict."""
    call_content: str | None = ""
    """Content of an assistant message that has calls and no text."""


class ControlSpellings:
    """How a tokenizer's control tokens are spelled."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.control_tokens = dict(tokens)
        """Spelling -> id of every added token for which text could be mistaken."""
        self.control_pattern = _any_of(self.control_tokens)
        """Finds where such a spelling begins, also inside another; group 1 is the longest. None when there are none."""
        self.open_tails = _open_tails(self.control_tokens)
        """Ends of a text that would swallow the beginning of a control token that follows (MiniMax: `[e~` + `[e~[`)."""


class ChatTemplate(ControlSpellings):
    """Render, encode and decode with one tokenizer and one set of template arguments.

    `template_kwargs` are the user's (for example `enable_thinking=False`). Three are added when the template names them
    and the user did not: the switch that keeps earlier thinking, `tools_in_user_message=False` (otherwise Llama-3.1
    shows the agent's greeting as the user's words), and `date_string`, so that a prompt does not change at midnight.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template_kwargs: Mapping[str, object] | None = None,
        generation_stop_ids: Iterable[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.template_source = template_source(tokenizer)
        self.shape = MessageShape()
        self.chars_encoded = 0
        """Characters given to the tokenizer so far; what a turn costs is the difference."""
        given = dict(template_kwargs or {})
        self.preset_kwargs = _preset_kwargs(self.template_source, given)
        self.template_kwargs: dict[str, object] = {**given, **self.preset_kwargs}
        super().__init__(control_tokens(tokenizer))
        self.closers: dict[str, int] = {}
        """Spelling -> id of each token that may end an assistant turn in history."""
        self.stop_ids: frozenset[int] = frozenset(int(token) for token in generation_stop_ids)
        """Ids on which the server has to stop; pass them to it as `stop_token_ids`."""
        eos = getattr(tokenizer, "eos_token_id", None)
        if isinstance(eos, int):
            self.stop_ids |= {eos}
        known = known_turn_tokens(self.template_source, self.token_id)
        if known is not None:
            self.closers, stops = known
            self.stop_ids |= stops

    # --- text

    def render(self, messages: Sequence[ChatMessage], tools: Tools = None, add_generation_prompt: bool = True) -> str:
        """The text that the template writes. Raises TemplateError("raises") when the template refuses the messages."""
        shaped = [self.shaped(message) for message in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    shaped,
                    tools=list(tools) if tools else None,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                    **self.template_kwargs,
                )
            )
        except Exception as error:  # the template is the checkpoint's code: it may raise anything
            roles = " ".join(str(message.get("role")) for message in messages)
            raise TemplateError("raises", f"the chat template refuses [{roles}]: {_reason(error)}") from error

    def shaped(self, message: ChatMessage) -> dict[str, Any]:
        """The message as this template wants it; the input is left as it was."""
        result = {key: value for key, value in message.items() if value is not None or key == "content"}
        calls = result.pop("tool_calls", None)
        if calls:
            result["tool_calls"] = [self._shaped_call(call) for call in calls]
            result["content"] = result.get("content") or self.shape.call_content
        elif result.get("content") is None:
            result["content"] = ""
        return result

    def _shaped_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        result = copy.deepcopy(dict(call))
        function = result["function"]
        function["arguments"] = self.shaped_arguments(function.get("arguments"))
        return result

    def shaped_arguments(self, arguments: object) -> dict[str, object] | str:
        """Arguments as a dict, or as its JSON string. What is not a JSON object goes under the key "arguments"."""
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {"arguments": arguments}
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, Mapping):
            arguments = {"arguments": arguments}
        return json.dumps(arguments, ensure_ascii=False) if self.shape.string_arguments else dict(arguments)

    # --- ids

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` as it stands: no BOS token, and the spelling of an added token becomes that token."""
        if not text:
            return []
        self.chars_encoded += len(text)
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids` with every token kept and no cleaning up."""
        return self.tokenizer.decode(
            list(ids),
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
            spaces_between_special_tokens=False,
        )

    def token_id(self, spelling: str) -> int | None:
        """Id of an added token; None when the vocabulary has no such token."""
        return self.control_tokens.get(spelling)


def template_source(tokenizer: Tokenizer) -> str:
    """The Jinja source that the tokenizer uses when tools are given; raises TemplateError("no-template")."""
    probe = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
    try:
        source = tokenizer.get_chat_template(tools=probe)
    except (ValueError, AttributeError) as error:
        raise TemplateError(
            "no-template",
            f"{getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__} has no chat template "
            f"({_reason(error)}); use an instruct checkpoint, or set tokenizer.chat_template",
        ) from error
    return str(source)


def control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Spelling -> id of the added tokens that are marks, not plain words or runs of white space."""
    return {
        str(spelling): int(token)
        for spelling, token in tokenizer.get_added_vocab().items()
        if spelling and not spelling.isspace() and not spelling.isalnum()
    }


def _any_of(spellings: Iterable[str]) -> re.Pattern[str] | None:
    ordered = sorted((spelling for spelling in spellings if len(spelling) > 1), key=lambda s: (-len(s), s))
    return re.compile(f"(?=({'|'.join(map(re.escape, ordered))}))") if ordered else None


def _open_tails(spellings: Iterable[str]) -> tuple[str, ...]:
    beginnings = {spelling[:size] for spelling in spellings for size in range(1, len(spelling))}
    return tuple(sorted({s[:size] for s in spellings for size in range(1, len(s)) if s[size:] in beginnings}))


def _preset_kwargs(source: str, given: Mapping[str, object]) -> dict[str, object]:
    preset_kwargs: dict[str, object] = {
        name: value for name, value in KEEP_THINKING_ARGUMENTS.items() if _names(source, name) and name not in given
    }
    if _names(source, "tools_in_user_message") and "tools_in_user_message" not in given:
        preset_kwargs["tools_in_user_message"] = False
    if _names(source, "date_string") and "date_string" not in given:
        own = re.search(r"date_string\s*=\s*([\"'])(.+?)\1", source)
        preset_kwargs["date_string"] = own.group(2) if own else datetime.now().strftime("%d %b %Y")
    return preset_kwargs


def _names(source: str, variable: str) -> bool:
    return re.search(rf"\b{variable}\b", source) is not None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
