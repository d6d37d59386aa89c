"""The cookbook's renderers beside the models' own chat templates: one conversation as slime's and Tinker's doors show it.

`python -m tests.backends.doors.renderers` (where tinker-cookbook is) prints a list of `Row`s as JSON, with ``--tables`` what
renderers.md says about them.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.tokens.rows import ROWS, qwen
from tests.tokens.rows import Row as Template
from tests.tokens.support import call, calls, result, text, user

FAMILIES: tuple[tuple[str, str], ...] = (
    ("qwen3_instruct", "Qwen3-Instruct-2507"),
    ("qwen3", "Qwen3 hybrid, thinking"),
    ("qwen3", "Qwen3-Thinking-2507"),
    ("qwen3_disable_thinking", "Qwen3 hybrid, enable_thinking=False"),
    ("qwen3_5", "Qwen3.5, thinking"),
    ("qwen3_5_disable_thinking", "Qwen3.5, no thinking"),
    ("qwen3_5_preserve_thinking", "Qwen3.6"),
    ("qwen3_8_xhigh_reasoning", "Qwen3.8"),
    ("qwen3_8_disable_thinking", "Qwen3.8, enable_thinking=False"),
    ("nemotron3", "Nemotron-3-Nano"),
    ("nemotron3_disable_thinking", "Nemotron-3-Nano, enable_thinking=False"),
    ("llama3", "Llama-3.1"),
    ("kimi_k2", "Kimi-K2"),
    ("deepseekv3", "DeepSeek-V3.1"),
    ("deepseekv3_thinking", "DeepSeek-V3.1"),
    ("gpt_oss_no_sysprompt", "gpt-oss"),
    ("gpt_oss_medium_reasoning", "gpt-oss"),
    ("role_colon", "Qwen3-Instruct-2507"),
)
"""Renderer and the template of the model that it is for (a name of `ROWS` or `MORE`)."""
MORE: dict[str, Template] = {
    "Qwen3.8": qwen("qwen3_8"),
    "Qwen3.8, enable_thinking=False": qwen("qwen3_8", kwargs={"enable_thinking": False}),
    "Nemotron-3-Nano, enable_thinking=False": qwen("nemotron_3_nano", kwargs={"enable_thinking": False}),
}
PLACES = ("first prompt", "after text", "after a call", "after two calls")


@dataclass
class Row:
    """What one family's two renderings have in common."""

    vocabulary: str
    """real: the model's own; else a stand-in with the family's control tokens."""
    refused: dict[str, str] = field(default_factory=dict)
    """Door -> why it does not take this family."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """Place -> [] where both doors have the same tokens, else the text where they part: slime's, Tinker's."""
    parser: str = ""
    """Who reads the model's turns at Tinker's door: a parser of this package, or the renderer."""


def template_of(family: str) -> Template:
    return ROWS.get(family) or MORE[family]


def compared(renderer: str, family: str) -> Row:
    template = template_of(family)
    tokenizer = template.tokenizer()
    row = Row("real" if len(tokenizer) > 100_000 else "stand-in")
    delta = _slimes(tokenizer, template, row)
    shown = _tinkers(renderer, tokenizer, row)
    if delta is None or shown is None:
        return row
    system, tools = _retail()
    chat: list[dict[str, Any]] = [system, text("Hi! How can I help you today?"), user("Where is my order?")]
    ours, theirs = delta.first_prompt_delta(list(chat), tools).ids, shown.first_prompt(list(chat), tools)
    row.places["first prompt"] = _parting(tokenizer, ours, theirs)
    one = calls(call(1, "get_order_details", order_id="#W0000001"))
    two = calls(call(2, "get_order_details", order_id="#W0000002"), call(3, "get_user_details", user_id="a_b_1"))
    turns = (
        ("after text", text("Which one?"), [user("#W0000001")]),
        ("after a call", one, [result(1, '{"status": "pending"}')]),
        ("after two calls", two, [result(2, "Error: not found"), result(3, "{}", "get_user_details")]),
    )
    for place, turn, new in turns:
        plain = [{name: value for name, value in m.items() if name != "name"} for m in new]  # as both doors give them
        made = {c["id"]: c["function"]["name"] for c in turn.get("tool_calls") or []}
        try:
            ours = delta.between(list(chat), {**turn, "content": turn["content"] or ""}, plain, tools).ids
        except Exception as error:  # such as a template that knows one call a turn
            row.places[place] = [f"refused: {error}", ""]
            continue
        theirs = shown.next_prompt([shown.stop_ids[0]], plain, made)
        row.places[place] = _parting(tokenizer, ours, theirs)
        chat += [{**turn, "content": turn["content"] or ""}, *plain]
    return row


def _slimes(tokenizer: Any, template: Template, row: Row) -> Any:
    from tau2_slime.tokens.template.chat_delta import ChatDelta

    try:
        return ChatDelta.calibrate(tokenizer, template_kwargs=template.kwargs)
    except ValueError as error:
        row.refused["slime"] = str(error)
        return None


def _tinkers(renderer: str, tokenizer: Any, row: Row) -> Any:
    import copy

    from tinker_cookbook import renderers

    from tau2_slime.backends.tinker.rendering import TurnRenderer
    from tau2_slime.errors import ConfigError

    own = copy.deepcopy(tokenizer)
    try:
        turns = TurnRenderer(renderers.get_renderer(renderer, own), own, renderer)
    except ConfigError as error:
        row.refused["Tinker"] = str(error)
        return None
    row.parser = turns.parser.name if turns.parser is not None else "the renderer's"
    return turns


def _retail() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from tau2_slime.world import domains, tau2_compat
    from tau2_slime.world.environment import World, tool_schema

    world = World("retail", "base", domains.tasks("retail", "base")[0])
    agent = tau2_compat.build_agent("llm", world.agent_tools, world.policy, world.task)
    return {"role": "system", "content": agent.system_prompt}, [tool_schema(tool) for tool in agent.tools]


def _parting(tokenizer: Any, ours: list[int], theirs: list[int]) -> list[str]:
    if ours == theirs:
        return []
    first, second = (tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (ours, theirs))
    if first == second:
        return ["the same text in other tokens", ""]
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    start = max(0, at - 12)
    return [first[start : at + 36], second[start : at + 36]]


# ---- the tables of renderers.md --------------------------------------------------------------------------------------


def tables(rows: list[dict[str, Any]]) -> str:
    """Two tables: where the doors agree, and the texts where they part."""
    agree = [f"| renderer | chat template | vocabulary | {' | '.join(PLACES)} |", "| --- " * (3 + len(PLACES)) + "|"]
    part = [
        "| renderer | where | chat template (slime's door) | renderer (Tinker's door) |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        name = f"`{row['renderer']}`"
        if row["refused"]:
            who = " and ".join(f"{door}'s door" for door in row["refused"])
            cells = [f"refused by {who}", *[""] * (len(PLACES) - 1)]
        else:
            cells = ["differs" if row["places"][place] else "same" for place in PLACES]
        agree.append(f"| {name} | {row['family']} | {row['vocabulary']} | {' | '.join(cells)} |")
        for place, texts in row["places"].items():
            if texts:
                part.append(f"| {name}, {row['family']} | {place} | {_shown(texts[0])} | {_shown(texts[1])} |")
    return "\n".join([*agree, "", *part])


def _shown(words: str) -> str:
    return "`" + words.replace("\n", "\\n").replace("|", "\\|") + "`"


def main() -> None:
    import warnings

    warnings.simplefilter("ignore")
    rows = [{"renderer": r, "family": f, **asdict(compared(r, f))} for r, f in FAMILIES]
    print(tables(rows) if sys.argv[1:] == ["--tables"] else json.dumps(rows, ensure_ascii=False))


if __name__ == "__main__":
    main()
