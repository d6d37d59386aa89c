"""A `TokenCompleter` that plays a task's gold script, in the tokens of a renderer. Like a model, it keeps nothing."""

from __future__ import annotations

import json
from typing import Any

from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs

from tests.backends.chat_server import speak

START = "<|im_start|>"


class Player(TokenCompleter):
    """``models``: names of `chat_server.speak`, taken in turn by the episodes in the order of their first calls."""

    def __init__(self, tokenizer: Any, *models: str, stop_reason: str = "stop") -> None:
        self.tokenizer, self.models, self.stop_reason = tokenizer, models or ("gold",), stop_reason
        self.calls: list[tuple[list[int], list[int]]] = []
        self._assigned: list[str] = []

    async def __call__(self, model_input: Any, stop: Any, *, max_tokens: int | None = None) -> TokensWithLogprobs:
        return self.speak(model_input, stop)

    def speak(self, model_input: Any, stop: Any) -> TokensWithLogprobs:
        prompt = model_input.to_ints()
        text = self.tokenizer.decode(prompt)
        messages = _messages(text)
        if sum(m["role"] == "assistant" for m in messages) == 1:  # the greeting only
            self._assigned.append(self.models[len(self._assigned) % len(self.models)])
        message = speak(self._assigned[-1] if len(self.models) > 1 else self.models[0], messages)
        said = message["content"] or ""
        for call in message["tool_calls"] or []:
            function = call["function"]
            spelled = f'{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}'
            said += f"<tool_call>\n{spelled}\n</tool_call>"
        tokens = self.tokenizer.encode(said, add_special_tokens=False)
        if self.stop_reason == "stop":
            tokens.append(stop[0])
        self.calls.append((prompt, tokens))
        return TokensWithLogprobs(tokens, [-0.25] * len(tokens), self.stop_reason)


def _messages(text: str) -> list[dict[str, Any]]:
    turns = [turn.split("<|im_end|>")[0] for turn in text.split(START)[1:-1]]  # the last one is to be written
    return [dict(zip(("role", "content"), turn.split("\n", 1), strict=True)) for turn in turns]
