"""The model families that are known here: everything that differs from one family to the next, one row each.

The chat template, the stop tokens, the reasoning tags and the choice of a tool-call parser all read this table.

To add a family whose calls sglang can read, add a row to `FAMILIES`. To add a tool-call format of your own:

1. Write a module in ``tokens/calls/parsers/``. A format between two tags subclasses ``TaggedParser``
   (``tokens/calls/parsers/tagged.py`` shows how); any other format fits ``ToolCallParser`` (``tokens/calls/types.py``).
2. Add a row here that names the class in `ModelFamily.parser_class`.

`PARSER_CLASSES` then offers the format to ``tool_call_parser``, and the tests of all parsers run on it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tau2_slime.chat.thoughts import COHERE, MISTRAL, Tags
from tau2_slime.chat.thoughts import THINK as THINK_TAGS

THINK, END_THINK = THINK_TAGS


@dataclass(frozen=True, kw_only=True)
class TurnTokens:
    """The tokens that end an assistant turn.

    Families share them, and a fine-tune may have the turns of one family and the calls of another. So a chat template is
    compared with the turns of the table on its own, whatever its calls look like.
    """

    markers: tuple[str, ...]
    """A template has this kind of turns if it writes all of them and the vocabulary has all of them."""
    closers: tuple[str, ...]
    """What the template writes at the end of an assistant turn in the history."""
    stops: tuple[str, ...]
    """What the model samples at the end of its turn: the server has to stop there."""


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """One family, or one generation of it, with its own way to write a tool call."""

    name: str
    """For readers; nothing depends on it."""
    parser: str | None
    """The ``tool_call_parser`` that reads its calls; None: the family is recognised, but nothing here reads its calls."""
    parser_class: str | None = None
    """Dotted path of that parser, if it is one of this package."""
    template_markers: tuple[tuple[str, ...], ...] = ()
    """Texts around a call in the chat template. It is this family if all texts of one of the tuples occur, and no row above
    it in the table matches."""
    added_token: str | None = None
    """A token that only this family's vocabulary has, for templates that leave the writing of calls to the caller."""
    sglang_parsers: tuple[str, ...] = ()
    """Names of sglang's ``--tool-call-parser`` that read this family's calls."""
    call_start: str | None = None
    """What every single call begins with; None: one call is expected wherever sglang sees any."""
    reasoning_tags: Tags = THINK_TAGS
    turn: TurnTokens | None = None
    """None: the template's own rendering shows its closer, and the checkpoint names its stop tokens."""


_CHATML = TurnTokens(markers=("<|im_end|>",), closers=("<|im_end|>",), stops=("<|im_end|>", "<|endoftext|>"))
_DEEPSEEK = TurnTokens(
    markers=("<｜end▁of▁sentence｜>",), closers=("<｜end▁of▁sentence｜>",), stops=("<｜end▁of▁sentence｜>",)
)
_PARSERS = "tau2_slime.tokens.calls.parsers."

FAMILIES: tuple[ModelFamily, ...] = (
    ModelFamily(
        name="MiniMax-M2",
        parser="sglang:minimax-m2",
        template_markers=(("<minimax:tool_call>",),),
        added_token="<minimax:tool_call>",
        sglang_parsers=("minimax-m2",),
        call_start="<invoke name=",
        turn=TurnTokens(markers=("[e~[",), closers=("[e~[",), stops=("[e~[",)),
    ),
    ModelFamily(name="<invoke> tags in a namespace", parser=None, template_markers=(("ns_token", "<invoke name="),)),
    ModelFamily(
        name="Kimi-K2",
        parser="sglang:kimi_k2",
        template_markers=(("<|tool_call_begin|>",),),
        added_token="<|tool_call_begin|>",
        sglang_parsers=("kimi_k2",),
        call_start="<|tool_call_begin|>",
        turn=_CHATML,
    ),
    ModelFamily(
        name="DeepSeek-V3.2",
        parser="sglang:deepseekv32",
        template_markers=(("｜DSML｜", "function_calls"),),
        sglang_parsers=("deepseekv32",),
        call_start="<｜DSML｜invoke",
        turn=_DEEPSEEK,
    ),
    ModelFamily(
        name="DeepSeek-V4",
        parser="sglang:deepseekv4",
        template_markers=(("｜DSML｜",),),
        sglang_parsers=("deepseekv4",),
        call_start="<｜DSML｜invoke",
        turn=_DEEPSEEK,
    ),
    ModelFamily(
        name="DeepSeek-V3, DeepSeek-R1",
        parser="sglang:deepseekv3",
        template_markers=(("<｜tool▁calls▁begin｜>", "```json"),),
        sglang_parsers=("deepseekv3",),
        call_start="<｜tool▁call▁begin｜>",
        turn=_DEEPSEEK,
    ),
    ModelFamily(
        name="DeepSeek-V3.1",
        parser="sglang:deepseekv31",
        template_markers=(("<｜tool▁calls▁begin｜>",),),
        sglang_parsers=("deepseekv31",),
        call_start="<｜tool▁call▁begin｜>",
        turn=_DEEPSEEK,
    ),
    ModelFamily(
        name="Step-3",
        parser="sglang:step3",
        template_markers=(("<｜tool_calls_begin｜>",),),
        sglang_parsers=("step3",),
        call_start="<｜tool_call_begin｜>",
    ),
    ModelFamily(
        name="gpt-oss",
        parser="sglang:gpt-oss",
        template_markers=(("<|channel|>", "functions.", "<|call|>"),),
        sglang_parsers=("gpt-oss",),
        call_start=" to=functions.",
        # The model samples <|return|> after a text; in the history the template writes <|end|> in its place.
        turn=TurnTokens(
            markers=("<|call|>", "<|return|>"),
            closers=("<|end|>", "<|call|>", "<|return|>"),
            stops=("<|return|>", "<|call|>"),
        ),
    ),
    ModelFamily(
        name="Mistral",
        parser="sglang:mistral",
        template_markers=(("[TOOL_CALLS]",),),
        sglang_parsers=("mistral",),
        reasoning_tags=MISTRAL,
    ),
    ModelFamily(
        name="LFM2", parser="sglang:lfm2", template_markers=(("<|tool_call_start|>",),), sglang_parsers=("lfm2",)
    ),
    ModelFamily(
        name="Cohere Command",
        parser="sglang:cohere_command4",
        template_markers=(("<|START_ACTION|>",),),
        sglang_parsers=("cohere_command4",),
        reasoning_tags=COHERE,
    ),
    ModelFamily(
        name="Gemma-4",
        parser="sglang:gemma4",
        template_markers=(("<|tool_call>",),),
        sglang_parsers=("gemma4",),
        call_start="<|tool_call>",
        turn=TurnTokens(markers=("<turn|>",), closers=("<turn|>",), stops=("<turn|>",)),
    ),
    ModelFamily(
        name="GLM-4.5 and later",
        parser="glm",
        parser_class=_PARSERS + "glm.GlmParser",
        template_markers=(("<tool_call>", "<arg_key>"),),
        added_token="<arg_key>",
        sglang_parsers=("glm", "glm45", "glm47"),
        call_start="<tool_call>",
        # No token ends a turn: the model samples the marker of the next role.
        turn=TurnTokens(
            markers=("<|user|>", "<|observation|>"),
            closers=("<|user|>", "<|observation|>", "<|system|>"),
            stops=("<|user|>", "<|observation|>", "<|endoftext|>"),
        ),
    ),
    ModelFamily(
        name="Qwen3-Coder, Qwen3.5 and later, Nemotron-3",
        parser="qwen_xml",
        parser_class=_PARSERS + "qwen_xml.QwenXmlParser",
        template_markers=(("<tool_call>", "<function="),),
        sglang_parsers=("qwen3_coder", "mimo", "step3p5"),
        call_start="<tool_call>",
        turn=_CHATML,
    ),
    ModelFamily(
        name="Qwen2.5, Qwen3, Hermes",
        parser="hermes",
        parser_class=_PARSERS + "hermes.HermesParser",
        template_markers=(("<tool_call>", '"name"'),),
        sglang_parsers=("hermes", "qwen", "qwen25"),
        call_start="<tool_call>",
        turn=_CHATML,
    ),
    ModelFamily(name="function tags without <tool_call>", parser=None, template_markers=(("<function=",),)),
    # Below those whose fine-tunes keep Llama's headers and bring a format of their own.
    ModelFamily(
        name="Llama-3.x",
        parser="sglang:llama3",
        template_markers=(("<|start_header_id|>", '"parameters": '), ("<|start_header_id|>", "<|python_tag|>")),
        sglang_parsers=("llama3",),
        turn=TurnTokens(
            markers=("<|eot_id|>",),
            closers=("<|eot_id|>", "<|eom_id|>"),
            stops=("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"),
        ),
    ),
    # Never recognised by a template: for those who choose one of sglang's parsers themselves.
    ModelFamily(
        name="others whose calls begin with <tool_call>",
        parser=None,
        sglang_parsers=("hunyuan", "poolside_v1", "trinity"),
        call_start="<tool_call>",
    ),
)
"""In the order in which a chat template is compared with them: the first row that matches is the family."""

PARSER_CLASSES: dict[str, str] = {
    family.parser: family.parser_class for family in FAMILIES if family.parser and family.parser_class
}
"""The parsers of this package: name -> dotted path of the class."""

STOP_TEXTS: tuple[str, ...] = tuple(
    dict.fromkeys(stop for family in FAMILIES if family.turn is not None for stop in family.turn.stops)
)
"""The text of every token that ends a turn in some family."""


def sglang_family(parser: str) -> ModelFamily | None:
    """The family whose calls sglang's parser of this name reads; None if the table does not name it."""
    return next((family for family in FAMILIES if parser in family.sglang_parsers), None)
