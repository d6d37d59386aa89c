"""Messages to tokens and back, in the words of one of the cookbook's renderers.

The first prompt is the renderer's. From then on tokens are only appended: what the policy sampled stays as it was sampled,
and what follows it is cut out of the renderer's own rendering, after a sentinel that stands for the sampled turn. So every
observation begins with the one before and its action, and a whole episode is one training datum, whatever the renderer does
to earlier thinking. Only a turn that ended with another stop token than the renderer puts there has that token replaced in
what follows, as slime's door does it; the cookbook then begins a new datum.
"""

from __future__ import annotations

import copy
import json
import threading
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer as Backend

from tau2_slime.errors import ConfigError
from tau2_slime.tokens.calls.parsers.checks import parsed_call
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
from tau2_slime.tokens.template.chat_template import ControlSpellings, control_tokens
from tau2_slime.tokens.template.control_tokens import Neutraliser

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


class Words:
    """How a renderer shows a conversation, and how its model's turns are read."""

    def __init__(self, renderer: Any, tokenizer: Any, name: str = "") -> None:
        """``tokenizer``: the renderer's, and nobody else's: what it encodes is looked at from now on.

        Raises:
            ConfigError: the renderer cannot show tools, or what follows a turn cannot be told exactly.
        """
        self.renderer, self.tokenizer, self.name = renderer, tokenizer, name or type(renderer).__name__
        # What a user or a tool says may spell a control token: it is encoded as text, whoever asks the tokenizer to.
        self._encode, self._spellings = tokenizer.encode, ControlSpellings(control_tokens(tokenizer))
        self._outside: Neutraliser | None = None
        """Knows what the messages that are being rendered spell."""
        tokenizer.encode = self._encode_outside
        for attribute, value in list(vars(renderer).items()):
            if isinstance(value, Backend | _OwnTokenizer):  # 0.6's qwen3 encodes what messages say with one of its own
                setattr(renderer, attribute, _OwnTokenizer(value, self))
        # Renderers switch a flag of the tokenizer from call to call: two threads at once get an error, or the other's flag.
        self._lock = threading.RLock()
        stops = renderer.get_stop_sequences()
        if not stops or not all(isinstance(stop, int) for stop in stops):
            raise ConfigError(
                f"renderer {self.name} ends a turn with text ({stops!r}), not with a token: what follows a sampled turn "
                "cannot be appended exactly; choose a renderer of the model's own family"
            )
        self.stop_ids: list[int] = list(stops)
        self._check_spellings()
        follow_up = self._after_turn([{"role": "user", "content": "Hello"}])
        self._thinking_open = self.text(follow_up).rstrip().endswith("<think>")
        self.first([{"role": "system", "content": "Hello"}], [_PROBE_TOOL])
        self.parser = self._own_parser()
        """This package's parser for the family, if it reads what the renderer writes; None: the renderer's own is used."""

    # ---- messages to tokens ------------------------------------------------------------------------------------------

    def first(self, chat: list[dict[str, Any]], tools: list[Tool]) -> list[int]:
        """The first prompt: system message and tools as the renderer combines them, the rest, the generation prompt.

        Raises:
            ConfigError: the renderer has no way to show tools.
        """
        system = "".join(m["content"] for m in chat[:1] if m["role"] == "system")
        try:
            prefix = self.renderer.create_conversation_prefix_with_tools([_tool_spec(t) for t in tools], system)
        except NotImplementedError:
            raise ConfigError(f"renderer {self.name} cannot show tools to the model; choose another one") from None
        return self._tokens([*prefix, *self._messages(chat[1:] if system else chat)])

    def then(self, so_far: list[int], new: list[dict[str, Any]], names: dict[str, str]) -> list[int]:
        """``so_far`` (it ends with the sampled turn and its stop token), then ``new`` and the generation prompt.

        The stop token gives way to the renderer's own closer where the two differ.

        ``names``: tool_call_id -> tool, for the renderers that show it beside a result.
        """
        return [*so_far[:-1], *self._after_turn(self._messages(new, names))]

    def _after_turn(self, new: list[Any]) -> list[int]:
        """The closer of a turn of the assistant, then ``new`` and the generation prompt."""
        before = [{"role": "system", "content": "."}, {"role": "user", "content": "."}]
        ids = self._tokens([*before, {"role": "assistant", "content": _SENTINEL}, *new])
        end = self._end_of_sentinel(ids)
        if end is None or end >= len(ids) or ids[end] not in self.stop_ids:
            raise ConfigError(
                f"renderer {self.name} does not end an earlier turn with the token that its model stops with: "
                "what follows a sampled turn cannot be appended exactly"
            )
        return ids[end:]

    def _end_of_sentinel(self, ids: list[int]) -> int | None:
        """The position after the last token of the sentinel, if its end is the end of a token."""
        low, high = 0, len(ids)  # the least count of leading tokens whose text holds the sentinel
        while low < high:
            middle = (low + high) // 2
            if _SENTINEL in self.text(ids[:middle]):
                high = middle
            else:
                low = middle + 1
        return low if self.text(ids[:low]).endswith(_SENTINEL) else None

    def text(self, ids: list[int]) -> str:
        with self._lock:
            return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _tokens(self, messages: list[Any]) -> list[int]:
        with self._lock:
            outside = self._outside = Neutraliser(self._spellings)
            safe = [outside.message(m) if m["role"] in ("user", "tool") else m for m in messages]
            try:
                return list(self.renderer.build_generation_prompt(safe).to_ints())
            finally:
                self._outside = None

    def _encode_outside(self, text: Any, *args: Any, **kwargs: Any) -> list[int]:
        """The tokenizer's ``encode``, while a renderer works: marks become the spellings that they stand for."""
        if self._outside is None or not isinstance(text, str):
            return list(self._encode(text, *args, **kwargs))
        return self._outside.encode(text, lambda piece: list(self._encode(piece, *args, **kwargs)))

    def _check_spellings(self) -> None:
        """Raises ConfigError if the renderer encodes what a message says without this object's noticing."""
        spelled = next(iter(self._spellings.control_tokens), None)
        if spelled is None:
            return
        said = {"content": f"a {spelled} b"}
        for chat in [{"role": "user", **said}], [{"role": "tool", "tool_call_id": "a", "name": "look_up", **said}]:
            if f"a {spelled} b" not in self.text(self._tokens(chat)):
                raise ConfigError(
                    f"renderer {self.name} does not show {spelled!r} in a {chat[0]['role']} message as it was written: "
                    "this release of the cookbook encodes it in a way that is not known here"
                )

    def _messages(self, chat: list[dict[str, Any]], names: dict[str, str] | None = None) -> list[Any]:
        from tinker_cookbook.renderers import ToolCall

        found: list[Any] = []
        known = dict(names or {})
        for message in chat:
            out: dict[str, Any] = {"role": message["role"], "content": message["content"]}
            if message["role"] == "tool":
                out["tool_call_id"] = message["tool_call_id"]
                if message["tool_call_id"] in known:
                    out["name"] = known[message["tool_call_id"]]
            if message.get("tool_calls"):
                out["tool_calls"] = [_tool_call(ToolCall, call) for call in message["tool_calls"]]
                known.update((call["id"], call["function"]["name"]) for call in message["tool_calls"])
            found.append(out)
        return found

    # ---- tokens to messages ------------------------------------------------------------------------------------------

    def ended(self, action: list[int]) -> bool:
        """True if the sampled turn ended by itself."""
        return bool(action) and action[-1] in self.stop_ids

    def read(self, action: list[int], tools: list[Tool]) -> ParsedTurn:
        """The sampled turn, taken apart; malformed calls keep their error, as in every door."""
        if self.parser is not None:
            text = self.text(action[:-1] if self.ended(action) else action)
            return self.parser.parse(text, tools, reasoning_open=self._thinking_open)
        with self._lock:
            message, _ = self.renderer.parse_response(action)
        content, reasoning = _split(message["content"])
        calls = [
            parsed_call(call.function.name, call.function.arguments, tools, call.id)
            for call in message.get("tool_calls") or []
        ]
        calls += [
            ParsedCall("", {}, CallStatus.INVALID_JSON, call.raw_text, f"The tool call cannot be read: {call.error}")
            for call in message.get("unparsed_tool_calls") or []
        ]
        return ParsedTurn(content, reasoning, calls)

    def _own_parser(self) -> ToolCallParser | None:
        """The parser of the checkpoint's chat template, if it reads two calls that the renderer wrote."""
        try:
            parser = get_parser(detect_parser(getattr(self.tokenizer, "chat_template", None) or ""))
        except (UnknownToolFormat, ParserUnavailable):
            return None
        wanted = [("look_up", {"id": "a"}), ("look_up", {"id": "b"})]
        calls = [{"id": f"call_{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(wanted)]
        turn = {"role": "assistant", "content": _SENTINEL, "tool_calls": calls}
        chat: list[dict[str, Any]] = [{"role": "user", "content": "."}, turn, {"role": "user", "content": "."}]
        try:
            ids = self._tokens(self._messages(chat))
        except Exception:  # a renderer without tool calls in history: then its own parser is the one that knows
            return None
        end = self._end_of_sentinel(ids)
        stop = next((i for i in range(end or len(ids), len(ids)) if ids[i] in self.stop_ids), None)
        if end is None or stop is None:
            return None
        read = parser.parse(_SENTINEL + self.text(ids[end:stop]), [_PROBE_TOOL])
        same = [(c.name, c.arguments) for c in read.calls] == wanted and read.content == _SENTINEL
        return parser if same else None


class _OwnTokenizer:
    """A tokenizer that a renderer keeps beside the common one: marks become spellings here, too."""

    def __init__(self, backend: Any, words: Words) -> None:
        self._backend, self._words = backend, words

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        """What the backend's ``encode`` returns, of which only the ``ids`` are there where there are several pieces."""
        outside = self._words._outside
        pieces = [text] if outside is None or not isinstance(text, str) else outside.pieces(text)
        encoded = [self._backend.encode(piece, *args, **kwargs) for piece in pieces]
        return encoded[0] if len(encoded) == 1 else SimpleNamespace(ids=[i for piece in encoded for i in piece.ids])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@lru_cache(maxsize=8)
def words_for(model_name: str, renderer_name: str | None) -> Words:
    """The `Words` of a model, built once per process; ``renderer_name`` None: the cookbook's recommendation.

    Raises:
        ConfigError: see `Words`; or the cookbook knows no such model or renderer.
    """
    from tinker_cookbook import renderers, tokenizer_utils

    name = renderer_for(model_name, renderer_name)
    try:
        tokenizer = copy.deepcopy(tokenizer_utils.get_tokenizer(model_name))  # ours alone: see `Words._lock`
        renderer = renderers.get_renderer(name, tokenizer)
    except Exception as error:  # the cookbook's errors have no common base
        raise _unusable(model_name, renderer_name, error) from error
    return Words(renderer, tokenizer, name)


def renderer_for(model_name: str, renderer_name: str | None) -> str:
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


def _tool_spec(tool: Tool) -> Any:
    """As τ² hands it to every model, so that the renderer shows what a chat template would show."""
    return tool["function"]


def _tool_call(kind: Any, call: dict[str, Any]) -> Any:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return kind(function=kind.FunctionBody(name=function["name"], arguments=arguments), id=call["id"])


def _split(content: Any) -> tuple[str | None, str | None]:
    """(text, thoughts) of a renderer's message content."""
    if isinstance(content, str):
        return content.strip() or None, None
    text = "".join(part["text"] for part in content if part["type"] == "text").strip()
    thoughts = "".join(part["thinking"] for part in content if part["type"] == "thinking").strip()
    return text or None, thoughts or None
