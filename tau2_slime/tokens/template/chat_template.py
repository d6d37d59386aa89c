"""The checkpoint's own chat template, rendered to text and encoded.

`ChatTemplate` wraps a transformers tokenizer (4.57 or 5.x). It uses the template unmodified. It chooses only the shape of
the messages that go in (`MessageShape`) and the keyword arguments, which stay fixed for the life of the object; and it
knows which tokens end a turn (`stop_tokens.py`).

What the template writes after an assistant turn is found with an anchor (`ChatTemplate.after`): the turn ends in a unique
sentinel, and the real new messages follow. The rendering need not begin with what was rendered before, so a template may
rewrite earlier turns.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from tau2_slime.tokens.template import direct
from tau2_slime.tokens.template.control_tokens import ControlSpellings, ControlTokenEscaper, control_tokens
from tau2_slime.tokens.template.stop_tokens import known_turn_tokens

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

ChatMessage = Mapping[str, Any]
"""A message as OpenAI's chat completions have it: "role", "content", "tool_calls", "tool_call_id", "name"."""
Tools = Sequence[Mapping[str, Any]] | None
"""OpenAI function schemas."""

SENTINEL = "anchor" + secrets.token_hex(8)
"""Letters and digits, which no template escapes or trims. Nobody can guess it, so no message contains it."""

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
        self._encode = direct.encoder(tokenizer)
        self.decode: Callable[[Sequence[int]], str] = direct.decoder(tokenizer) or partial(
            direct.slow_decode, tokenizer
        )
        """The text of token ids with every token kept and no cleaning up."""
        self._renderer = direct.Renderer(tokenizer, self.template_source, self.template_kwargs)
        super().__init__(control_tokens(tokenizer))
        self.closers: dict[str, int] = {}
        """Spelling -> id of each token that may end an assistant turn in history."""
        self.stop_ids: frozenset[int] = frozenset(int(token) for token in generation_stop_ids)
        """Ids on which the server has to stop; pass them to it as `stop_token_ids`."""
        if isinstance(tokenizer.eos_token_id, int):
            self.stop_ids |= {tokenizer.eos_token_id}
        known = known_turn_tokens(self.template_source, self.token_id)
        if known is not None:
            self.closers, stops = known
            self.stop_ids |= stops

    # --- text

    def render(self, messages: Sequence[ChatMessage], tools: Tools = None, add_generation_prompt: bool = True) -> str:
        """The text that the template writes. Raises TemplateError("raises") when the template refuses the messages."""
        shaped = list(map(self.shaped, messages))

        def by_transformers() -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    shaped,
                    tools=list(tools) if tools else None,
                    add_generation_prompt=add_generation_prompt,
                    tokenize=False,
                    **self.template_kwargs,
                )
            )

        try:
            return self._renderer.render(shaped, tools, add_generation_prompt, by_transformers)
        except Exception as error:  # the template is the checkpoint's code: it may raise anything
            roles = " ".join(str(message.get("role")) for message in messages)
            raise TemplateError("raises", f"the chat template refuses [{roles}]: {_reason(error)}") from error

    def shaped(self, message: ChatMessage) -> dict[str, Any]:
        """The message as this template wants it; the input is left as it was.

        Arguments that are not a JSON object go under the key "arguments".
        """
        result = {key: value for key, value in message.items() if value is not None}
        calls = result.pop("tool_calls", None)
        if not calls:
            if result.get("content") is None:
                result["content"] = ""
            return result
        result["tool_calls"] = []
        result["content"] = result.get("content") or self.shape.call_content
        for call in calls:
            arguments = call["function"].get("arguments")
            if isinstance(arguments, str):
                try:
                    arguments = json.loads(arguments)
                except ValueError:
                    arguments = {"arguments": arguments}
            if arguments is None:
                arguments = {}
            if not isinstance(arguments, Mapping):
                arguments = {"arguments": arguments}
            written = json.dumps(arguments, ensure_ascii=False) if self.shape.string_arguments else dict(arguments)
            result["tool_calls"].append({**call, "function": {**call["function"], "arguments": written}})
        return result

    def after(
        self,
        base: Sequence[ChatMessage],
        assistant: ChatMessage,
        new_messages: Sequence[ChatMessage],
        tools: Tools,
        escaper: ControlTokenEscaper,
    ) -> str:
        """What the template writes after the turn `assistant`, up to the end of the generation prompt.

        It begins with the turn's closer. (While calibration looks for the closers, with what follows the turn's text.)
        Control tokens that the new messages spell are marks of `escaper` in it.

        Raises:
            TemplateError: the template refuses the messages, does not write the turn exactly once, or does not close it.
            ValueError: no new message is given, or one of them is an assistant's.
        """
        if not new_messages:
            raise ValueError("no new messages: nothing follows the assistant's turn")
        if any(message.get("role") == "assistant" for message in new_messages):
            raise ValueError("an assistant message is sampled, never appended: new_messages may not contain one")
        calls = assistant.get("tool_calls")
        anchor: dict[str, Any] = {"role": "assistant", "content": SENTINEL}
        if calls:
            anchor = {**anchor, "content": self.shape.call_content, "tool_calls": _anchored(calls, escaper)}
        text = self.render([*base, anchor, *map(escaper.escape_fields, new_messages)], tools)
        count = text.count(SENTINEL)
        if count != 1:
            kind = "the arguments of a tool call" if calls else "the text of an assistant turn"
            code = "tool-call-dropped" if calls and count == 0 else "sentinel"
            raise TemplateError(code, f"the chat template writes {kind} {count} times instead of once")
        tail = text.split(SENTINEL)[1]
        if not self.closers:
            return tail
        found = [position for closer in self.closers if (position := tail.find(closer)) >= 0]
        if not found:
            raise TemplateError(
                "no-closer",
                "the chat template ends an assistant turn with none of "
                f"{json.dumps(list(self.closers), ensure_ascii=False)}; it writes {tail[:80]!r}",
            )
        return tail[min(found) :]

    # --- ids

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` as it stands: no BOS token, and the spelling of an added token becomes that token."""
        if not text:
            return []
        self.chars_encoded += len(text)
        if self._encode is not None:
            return self._encode(text)
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False)]

    def token_id(self, spelling: str) -> int | None:
        """Id of an added token; None when the vocabulary has no such token."""
        return self.control_tokens.get(spelling)


def _anchored(calls: Sequence[Mapping[str, Any]], escaper: ControlTokenEscaper) -> list[dict[str, Any]]:
    """The calls with the sentinel as arguments of the last; a template may repeat their ids and names after them."""
    anchored = []
    for number, call in enumerate(calls, start=1):
        function = escaper.escape_fields(call["function"])
        if number == len(calls):
            function["arguments"] = {"z": SENTINEL}
        anchored.append({**escaper.escape_fields(call, keys=("id",)), "function": function})
    return anchored


def template_source(tokenizer: Tokenizer) -> str:
    """The Jinja source that the tokenizer uses when tools are given; raises TemplateError("no-template")."""
    try:
        source = tokenizer.get_chat_template(tools=[{}])  # whether there are any decides
    except (ValueError, AttributeError) as error:
        raise TemplateError(
            "no-template",
            f"{getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__} has no chat template "
            f"({_reason(error)}); use an instruct checkpoint, or set tokenizer.chat_template",
        ) from error
    return str(source)


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
