"""One module per tool-call format; the modules share `tagged` (the scan of a turn) and `checks` (the schema)."""

from __future__ import annotations

from tau2_slime.tokens.tool_calls import ToolCallParser


def built_in(name: str) -> ToolCallParser:
    """The built-in parser called `name`. Raises KeyError."""
    from tau2_slime.tokens.parsers.glm import GlmParser
    from tau2_slime.tokens.parsers.hermes import HermesParser
    from tau2_slime.tokens.parsers.qwen_xml import QwenXmlParser

    parsers: dict[str, type[ToolCallParser]] = {
        "hermes": HermesParser,
        "qwen_xml": QwenXmlParser,
        "glm": GlmParser,
    }
    return parsers[name]()


def sglang_parser(name: str) -> ToolCallParser:
    """sglang's parser called `name`. Raises ParserUnavailable."""
    from tau2_slime.tokens.parsers.sglang_adapter import SglangParser

    return SglangParser(name)
