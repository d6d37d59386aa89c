"""Chat templates made up for one test each, and a small vocabulary that has their control tokens."""

from __future__ import annotations

from typing import Any

from tests.tokens.support import stand_in_tokenizer

ADDED = ("<|open|>", "<|close|>", "<|other|>")

TURN = "<|open|>{{ m.role }}\n{{ m.content or '' }}"
CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}</call>{% endfor %}"
TOOLS_HEAD = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
GENERATION = "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"


def template(head: str = TOOLS_HEAD, turn: str = TURN + CALLS, end: str = "<|close|>\n", tail: str = GENERATION) -> str:
    return f"{head}{{% for m in messages %}}{turn}{end}{{% endfor %}}{tail}"


def tokenizer_of(source: str | None, eos: str = "<|close|>", added: tuple[str, ...] = ADDED) -> Any:
    return stand_in_tokenizer(source, added, eos=eos)  # type: ignore[arg-type]
