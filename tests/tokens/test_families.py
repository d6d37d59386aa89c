"""The table of model families: no row hides another, and whatever it names exists."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tau2_slime.tokens.calls.parsers.tagged import strip_stop_tokens
from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tau2_slime.tokens.calls.types import ParserUnavailable, UnknownToolFormat
from tau2_slime.tokens.families import FAMILIES, PARSER_CLASSES, ModelFamily, TurnTokens, sglang_family
from tau2_slime.tokens.template.stop_tokens import known_turn_tokens
from tests.tokens.support import llama_cpp_template, trl_template

MARKED = [(family, texts) for family in FAMILIES for texts in family.template_markers]
TOLD_BY_A_TOKEN = [family for family in FAMILIES if family.added_token is not None]
TURNS = list(dict.fromkeys(family.turn for family in FAMILIES if family.turn is not None))


@pytest.mark.parametrize(("family", "texts"), MARKED, ids=[f"{f.name}: {t[0]}" for f, t in MARKED])
def test_every_familys_markers_choose_its_parser(family: ModelFamily, texts: tuple[str, ...]) -> None:
    source = "{{ '" + "' }} {{ '".join(texts).replace('"', '\\"') + "' }}"
    if family.parser is None:
        with pytest.raises(UnknownToolFormat):
            detect_parser(source)
        with pytest.raises(UnknownToolFormat):  # what the vocabulary has does not matter once the template has spoken
            detect_parser(source, ["<arg_key>"])
    else:
        assert detect_parser(source) == family.parser


@pytest.mark.parametrize("family", TOLD_BY_A_TOKEN, ids=[family.name for family in TOLD_BY_A_TOKEN])
def test_a_token_of_the_vocabulary_chooses_where_the_template_is_silent(family: ModelFamily) -> None:
    assert detect_parser("{{ messages }}", ["<tool_call>", family.added_token or ""]) == family.parser
    assert detect_parser("<tool_call> <arg_key>", [family.added_token or ""]) == "glm"


@pytest.mark.parametrize("name", PARSER_CLASSES)
def test_every_parser_of_the_package_loads_under_its_name(name: str) -> None:
    assert get_parser(name).name == name


def test_every_other_parser_is_sglangs() -> None:
    for family in FAMILIES:
        if family.parser is not None and family.parser_class is None:
            assert family.parser.removeprefix("sglang:") in family.sglang_parsers
            assert family.parser.startswith("sglang:")
    count = Counter(name for family in FAMILIES for name in family.sglang_parsers)
    assert set(count.values()) == {1}
    assert all(sglang_family(name) is family for family in FAMILIES for name in family.sglang_parsers)
    assert sglang_family("nonsense") is None


@pytest.mark.parametrize("turn", TURNS, ids=[turn.markers[0] for turn in TURNS])
def test_a_template_has_a_familys_turns_if_template_and_vocabulary_have_its_tokens(turn: TurnTokens) -> None:
    markers, closers, stops = turn.markers, turn.closers, turn.stops
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*markers, *closers, *stops]))}
    source = "".join(markers)
    assert known_turn_tokens(source, vocabulary.get) == (
        {closer: vocabulary[closer] for closer in closers},
        {vocabulary[stop] for stop in stops},
    )
    for missing in markers:
        fewer = {token: number for token, number in vocabulary.items() if token != missing}
        assert known_turn_tokens(source, fewer.get) is None
        assert known_turn_tokens(source.replace(missing, ""), vocabulary.get) is None
    bare = {marker: vocabulary[marker] for marker in markers}  # a small vocabulary: what it lacks is left out
    found = known_turn_tokens(source, bare.get)
    assert found is not None and set(found[0]) == set(markers) & set(closers)
    for stop in stops:
        assert strip_stop_tokens(f"Bye. {stop}\n") == "Bye. "


# --- the choice of a parser

TRL_FAMILIES = {
    "qwen2_5": "hermes",
    "qwen3": "hermes",
    "qwen3_instruct_2507": "hermes",
    "qwen3_5_think": "qwen_xml",
    "qwen3_6": "qwen_xml",
    "nemotron_3_nano": "qwen_xml",
    "glm4moe": "glm",
    "deepseekv3": "sglang:deepseekv3",
    "llama3_1": "sglang:llama3",
    "gptoss": "sglang:gpt-oss",
    "gemma4": "sglang:gemma4",
}
LLAMA_CPP_FAMILIES = {
    "Qwen3-Coder": "qwen_xml",
    "GLM-4.6": "glm",
    "GLM-4.7-Flash": "glm",
    "moonshotai-Kimi-K2": "sglang:kimi_k2",
    "Kimi-K2-Thinking": "sglang:kimi_k2",
    "deepseek-ai-DeepSeek-V3.1": "sglang:deepseekv31",
    "deepseek-ai-DeepSeek-V3.2": "sglang:deepseekv32",
    "MiniMax-M2": "sglang:minimax-m2",
    "openai-gpt-oss-120b": "sglang:gpt-oss",
    "mistralai-Mistral-Nemo-Instruct-2407": "sglang:mistral",
}


@pytest.mark.parametrize(("template", "name"), TRL_FAMILIES.items())
def test_parser_of_a_template(template: str, name: str) -> None:
    assert detect_parser(trl_template(template), []) == name


@pytest.mark.parametrize(("template", "name"), LLAMA_CPP_FAMILIES.items())
def test_parser_of_a_template_from_llama_cpp(template: str, name: str) -> None:
    assert detect_parser(llama_cpp_template(template), []) == name


def test_unknown_template_names_the_choices() -> None:
    with pytest.raises(UnknownToolFormat, match=", ".join((*PARSER_CLASSES, "sglang:<parser>, or the dotted path"))):
        detect_parser("{% for m in messages %}{{ m.content }}{% endfor %}", ["<tool_call>"])
    assert detect_parser("{{ messages }}", ["<tool_call>", "<arg_key>"]) == "glm"


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "glm4moe"])
def test_format_is_what_the_template_writes(template: str) -> None:
    """The embedded policy must write what the model's own template would."""
    from transformers.utils.chat_template_utils import render_jinja_template

    source = trl_template(template)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("get_order", {"order_id": 'é "quoted"\nline'}),
        ("send_certificate", {"user_id": "", "amount": -3, "rate": 0.5, "tags": ["a", {"b": True}], "gift": True}),
        ("list_airports", {}),
    ]
    messages = [
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in calls],
        },
    ]
    (rendered,), _ = render_jinja_template([messages], chat_template=source)
    assert get_parser(detect_parser(source)).format(calls) in rendered


def test_unknown_parser_names_the_choices() -> None:
    with pytest.raises(ParserUnavailable, match=", ".join(PARSER_CLASSES)):
        get_parser("hermess")
