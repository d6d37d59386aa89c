"""A conversation as tokens, and sampled tokens as turns, with one of tinker-cookbook's renderers.

The renderer writes the first prompt. From then on tokens are only appended. A sampled turn keeps its tokens. What follows it
is cut out of the renderer's own rendering of a conversation in which a sentinel stands for the sampled turn. So every
observation begins with the observation before it and its action, and an episode is one training datum, also with renderers
that drop earlier thinking. There is one exception: if the turn ended with another stop token than the renderer writes there,
the renderer's replaces it in what follows, as slime's door does it; the cookbook then begins a new datum.
"""

from __future__ import annotations

import copy
import json
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from tau2_slime.backends.tinker.escaping import EscapingTokenizers
from tau2_slime.chat.completion import read_message
from tau2_slime.chat.faults import UnusableMessage
from tau2_slime.errors import ConfigError
from tau2_slime.tokens.calls.action_text import ActionFormat
from tau2_slime.tokens.calls.parsers.chat_server import chat_turn
from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tau2_slime.tokens.calls.types import (
    CallStatus,
    ParsedCall,
    ParsedTurn,
    ParserUnavailable,
    Tool,
    ToolCallParser,
    UnknownToolFormat,
)

if TYPE_CHECKING:
    from tinker_cookbook.renderers import Message, Renderer, ToolCall, ToolSpec

    from tau2_slime.backends.turns import ChatMessage
    from tau2_slime.tokens.tokenizer import Tokenizer

_SENTINEL = "4093-sampled-turn"
"""Ends with a letter: vocabularies have tokens for punctuation with a line break after it, none for a letter with one."""
_PROBE_TOOL: Tool = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look it up.",
        "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    },
}


class TurnRenderer:
    """How one renderer shows a conversation, and how its model's turns are read. Thread-safe."""

    def __init__(self, renderer: Renderer, tokenizer: Tokenizer, name: str) -> None:
        """``tokenizer``: the renderer's. Nobody else may use it (see `EscapingTokenizers`). ``name``: for error messages.

        Raises:
            ConfigError: the renderer cannot show tools, what follows a turn cannot be appended exactly, or a control token
                that a message spells would reach the model.
        """
        self.renderer, self.tokenizer, self.name = renderer, tokenizer, name
        self._tokenizers = EscapingTokenizers(renderer, tokenizer)
        # A renderer switches a flag of its tokenizer from call to call, so two threads at once would mix their flags up.
        self._lock = threading.RLock()
        stops = renderer.get_stop_sequences()
        self.stop_ids = [stop for stop in stops if isinstance(stop, int)]
        """Tokens that end a turn of the model."""
        if not stops or len(self.stop_ids) < len(stops):
            raise ConfigError(
                f"renderer {self.name} ends a turn with text ({stops!r}), not with a token: what follows a sampled turn "
                "cannot be appended exactly; choose a renderer of the model's own family"
            )
        self._check_escaping()
        follow_up = self._after_turn([{"role": "user", "content": "Hello"}])
        self._opens_reasoning = self.decode(follow_up).rstrip().endswith("<think>")
        self.first_prompt([{"role": "system", "content": "Hello"}], [_PROBE_TOOL])
        self.parser = self._own_parser()
        """This package's parser for the model's family, if it reads what the renderer writes. None: the renderer parses."""

    # ---- messages to tokens ------------------------------------------------------------------------------------------

    def first_prompt(self, chat: list[ChatMessage], tools: list[Tool]) -> list[int]:
        """Token ids of the first prompt: system message and tools, the other messages, the generation prompt.

        Raises:
            ConfigError: the renderer cannot show tools.
        """
        if not tools:  # the system prompt tells them
            return self._render(_cookbook_messages(chat))
        system = "".join(m["content"] for m in chat[:1] if m["role"] == "system")
        try:
            prefix = self.renderer.create_conversation_prefix_with_tools([_tool_spec(t) for t in tools], system)
        except NotImplementedError:
            raise ConfigError(f"renderer {self.name} cannot show tools to the model; choose another renderer") from None
        return self._render([*prefix, *_cookbook_messages(chat[1:] if system else chat)])

    def next_prompt(self, so_far: list[int], new: list[ChatMessage], tool_names: dict[str, str]) -> list[int]:
        """Token ids of the next prompt: ``so_far``, then ``new`` and the generation prompt.

        Args:
            so_far: the last prompt and the turn that was sampled after it, stop token included. That one is replaced by
                the token with which the renderer ends a turn there.
            new: the messages that follow the turn.
            tool_names: tool_call_id -> tool, for renderers that show the tool beside its result.
        """
        return [*so_far[:-1], *self._after_turn(_cookbook_messages(new, tool_names))]

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, control tokens included."""
        with self._lock:
            return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _after_turn(self, new: list[Message]) -> list[int]:
        """The end of an assistant turn, then ``new`` and the generation prompt."""
        before: list[Message] = [
            {"role": "system", "content": "."},
            {"role": "user", "content": "."},
            {"role": "assistant", "content": _SENTINEL},
        ]
        ids = self._render([*before, *new])
        end = self._end_of_sentinel(ids)
        if end is None or end >= len(ids) or ids[end] not in self.stop_ids:
            raise ConfigError(
                f"renderer {self.name} does not end an earlier turn with the token that its model stops with: "
                "what follows a sampled turn cannot be appended exactly"
            )
        return ids[end:]

    def _end_of_sentinel(self, ids: list[int]) -> int | None:
        """The position after the sentinel's last token; None if the sentinel ends inside a token."""
        low, high = 0, len(ids)  # search for the least number of leading tokens whose text holds the sentinel
        while low < high:
            middle = (low + high) // 2
            if _SENTINEL in self.decode(ids[:middle]):
                high = middle
            else:
                low = middle + 1
        return low if self.decode(ids[:low]).endswith(_SENTINEL) else None

    def _render(self, messages: list[Message]) -> list[int]:
        with self._lock, self._tokenizers.escaping() as escaper:
            safe = [cast("Message", escaper.escape_fields(m)) if m["role"] in ("user", "tool") else m for m in messages]
            return list(self.renderer.build_generation_prompt(safe).to_ints())

    def _check_escaping(self) -> None:
        """Raises ConfigError if the renderer encodes the text of messages where `EscapingTokenizers` cannot see it."""
        spelled = next(iter(self._tokenizers.spellings.control_tokens), None)
        if spelled is None:
            return
        content = f"a {spelled} b"
        probes: list[Message] = [
            {"role": "user", "content": content},
            {"role": "tool", "tool_call_id": "a", "name": "look_up", "content": content},
        ]
        for message in probes:
            if content not in self.decode(self._render([message])):
                raise ConfigError(
                    f"renderer {self.name} does not show {spelled!r} in a {message['role']} message as it was written: "
                    "this release of the cookbook encodes messages in a way that tau2_slime does not know"
                )

    # ---- tokens to messages ------------------------------------------------------------------------------------------

    def ended(self, action: list[int]) -> bool:
        """True if the sampled turn ended with a stop token."""
        return bool(action) and action[-1] in self.stop_ids

    def parse(self, action: list[int], tools: list[Tool], actions: ActionFormat | None = None) -> ParsedTurn:
        """The sampled turn as text, reasoning and calls. A malformed call keeps its error, as in every door.

        ``actions``: how the model acts in plain text; None: with the tool calls of its renderer.
        """
        parser = actions or self.parser
        if parser is not None:
            text = self.decode(action[:-1] if self.ended(action) else action)
            return parser.parse(text, tools, reasoning_open=self._opens_reasoning)
        with self._lock:
            message, _ = self.renderer.parse_response(action)
        read = [
            {"id": call.id, "function": {"name": call.function.name, "arguments": call.function.arguments}}
            for call in message.get("tool_calls") or []
        ]
        try:
            turn = chat_turn(read_message({"content": message["content"], "tool_calls": read}), tools)
        except UnusableMessage as error:  # the model is told, as after any call that nobody can read
            return ParsedTurn(None, None, [ParsedCall("", {}, CallStatus.INVALID_JSON, "", f"This turn is {error}.")])
        turn.content = (turn.content or "").strip() or None
        turn.calls += [
            ParsedCall("", {}, CallStatus.INVALID_JSON, call.raw_text, f"The tool call cannot be read: {call.error}")
            for call in message.get("unparsed_tool_calls") or []
        ]
        return turn

    def _own_parser(self) -> ToolCallParser | None:
        """The parser of the checkpoint's chat template, if it reads two calls that the renderer wrote."""
        try:
            parser = get_parser(detect_parser(getattr(self.tokenizer, "chat_template", None) or ""))
        except (UnknownToolFormat, ParserUnavailable):
            return None
        wanted = [("look_up", {"id": "a"}), ("look_up", {"id": "b"})]
        calls = [{"id": f"call_{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(wanted)]
        turn = {"role": "assistant", "content": _SENTINEL, "tool_calls": calls}
        chat: list[ChatMessage] = [{"role": "user", "content": "."}, turn, {"role": "user", "content": "."}]
        try:
            ids = self._render(_cookbook_messages(chat))
        except Exception:  # the renderer writes no tool calls into the history: only its own parser knows them
            return None
        end = self._end_of_sentinel(ids)
        stop = next((i for i in range(end or len(ids), len(ids)) if ids[i] in self.stop_ids), None)
        if end is None or stop is None:
            return None
        read = parser.parse(_SENTINEL + self.decode(ids[end:stop]), [_PROBE_TOOL])
        same = [(c.name, c.arguments) for c in read.calls] == wanted and read.content == _SENTINEL
        return parser if same else None


@lru_cache(maxsize=8)
def turn_renderer(model_name: str, renderer_name: str | None) -> TurnRenderer:
    """The `TurnRenderer` of a model, built once per process. ``renderer_name`` None: the cookbook's recommendation.

    Raises:
        ConfigError: the cookbook knows no such model or renderer, or the renderer cannot be used (see `TurnRenderer`).
    """
    from tinker_cookbook import renderers, tokenizer_utils

    name = resolve_renderer_name(model_name, renderer_name)
    try:
        tokenizer = copy.deepcopy(tokenizer_utils.get_tokenizer(model_name))
        renderer = renderers.get_renderer(name, tokenizer)
    except Exception as error:  # the cookbook's errors have no common base
        raise _unusable(model_name, renderer_name, error) from error
    return TurnRenderer(renderer, tokenizer, name)


def resolve_renderer_name(model_name: str, renderer_name: str | None) -> str:
    """``renderer_name``, or the cookbook's recommendation for the model.

    Raises:
        ConfigError: the cookbook knows no such model.
    """
    from tinker_cookbook import model_info

    try:
        return str(renderer_name or model_info.get_recommended_renderer_name(model_name))
    except Exception as error:  # the cookbook's errors have no common base
        raise _unusable(model_name, renderer_name, error) from error


def _unusable(model_name: str, renderer_name: str | None, error: Exception) -> ConfigError:
    return ConfigError(f"model_name={model_name!r}, renderer_name={renderer_name!r}: {type(error).__name__}: {error}")


def _tool_spec(tool: Tool) -> ToolSpec:
    """The schema's function with all of its keys, so that the renderer shows what a chat template would show."""
    spec: ToolSpec = tool["function"]
    return spec


def _cookbook_messages(chat: list[ChatMessage], tool_names: dict[str, str] | None = None) -> list[Message]:
    """``chat`` as the cookbook's messages. A tool result is given the name of its tool where the call is known."""
    found: list[Message] = []
    names = dict(tool_names or {})
    for message in chat:
        out: Message = {"role": message["role"], "content": message["content"]}
        if message["role"] == "tool":
            out["tool_call_id"] = message["tool_call_id"]
            if message["tool_call_id"] in names:
                out["name"] = names[message["tool_call_id"]]
        if message.get("tool_calls"):
            out["tool_calls"] = [_cookbook_call(call) for call in message["tool_calls"]]
            names.update((call["id"], call["function"]["name"]) for call in message["tool_calls"])
        found.append(out)
    return found


def _cookbook_call(call: dict[str, Any]) -> ToolCall:
    from tinker_cookbook.renderers import ToolCall

    arguments = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return ToolCall(function=ToolCall.FunctionBody(name=call["function"]["name"], arguments=arguments), id=call["id"])
