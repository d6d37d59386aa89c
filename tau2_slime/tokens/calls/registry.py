"""Which parser reads a checkpoint's tool calls: the parser of a name, and the name for a chat template."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from tau2_slime.tokens.calls.types import ParserUnavailable, ToolCallParser, UnknownToolFormat
from tau2_slime.tokens.families import FAMILIES, PARSER_CLASSES, ModelFamily

SGLANG_PREFIX = "sglang:"
CHOICES = ", ".join((*PARSER_CLASSES, f"{SGLANG_PREFIX}<parser>"))
"""What `get_parser` accepts, in words; `<parser>` is any name of sglang's --tool-call-parser."""


def get_parser(name: str) -> ToolCallParser:
    """The parser called ``name``: one of `PARSER_CLASSES`, or ``sglang:`` and a name of sglang's ``--tool-call-parser``.

    Raises:
        ParserUnavailable: there is none of that name, or it cannot run here.
    """
    if name.startswith(SGLANG_PREFIX):
        from tau2_slime.tokens.calls.parsers.sglang_adapter import SglangParser

        return SglangParser(name.removeprefix(SGLANG_PREFIX))
    if name not in PARSER_CLASSES:
        raise ParserUnavailable(f"unknown tool-call parser {name!r}; choose one of {CHOICES}")
    module, _, class_name = PARSER_CLASSES[name].rpartition(".")
    parser: ToolCallParser = getattr(importlib.import_module(module), class_name)()
    return parser


def detect_parser(template_source: str, added_tokens: Iterable[str] = ()) -> str:
    """Name of the parser for what this chat template writes when an assistant turn calls a tool.

    The name may be one that `get_parser` cannot serve on this machine: sglang may be missing.

    Args:
        template_source: the Jinja source of the chat template.
        added_tokens: texts of the tokenizer's added tokens; they decide only where the template itself shows no format.

    Raises:
        UnknownToolFormat: no family of the table writes calls like this, or nothing here reads what it writes.
    """
    family = _family_of_template(template_source) or _family_of_vocabulary(set(added_tokens))
    if family is None or family.parser is None:
        raise UnknownToolFormat(
            "the chat template shows no tool-call format that is known here; name the parser yourself, one of "
            + CHOICES
        )
    return family.parser


def _family_of_template(source: str) -> ModelFamily | None:
    source = source.replace('\\"', '"')
    return next(
        (
            family
            for family in FAMILIES
            if any(all(text in source for text in texts) for texts in family.template_markers)
        ),
        None,
    )


def _family_of_vocabulary(tokens: set[str]) -> ModelFamily | None:
    return next((family for family in FAMILIES if family.added_token in tokens), None)
