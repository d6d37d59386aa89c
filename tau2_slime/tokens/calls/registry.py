"""Which parser reads a checkpoint's tool calls: the parser of a name, and the name for a chat template."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.dotted_path import load_object
from tau2_slime.tokens.calls.types import ParserUnavailable, ToolCallParser, UnknownToolFormat
from tau2_slime.tokens.families import FAMILIES, PARSER_CLASSES, ModelFamily

SGLANG_PREFIX = "sglang:"
CHOICES = ", ".join((*PARSER_CLASSES, f"{SGLANG_PREFIX}<parser>", "or the dotted path of a parser of your own"))
"""What `get_parser` accepts, in words; `<parser>` is any name of sglang's --tool-call-parser."""


def get_parser(name: str) -> ToolCallParser:
    """The parser called ``name``; its own ``name`` is then the same text, because a run records it.

    Args:
        name: one of `PARSER_CLASSES`; or ``sglang:`` and a name of sglang's ``--tool-call-parser``; or a dotted path such as
            ``my.module.MyParser``, which names an object that fits `ToolCallParser`, or a class of such objects that is
            called without arguments.

    Raises:
        ParserUnavailable: there is none of that name, it cannot run here, or the dotted path does not lead to a parser.
    """
    if name.startswith(SGLANG_PREFIX):
        from tau2_slime.tokens.calls.parsers.sglang_adapter import SglangParser

        return SglangParser(name.removeprefix(SGLANG_PREFIX))
    if name not in PARSER_CLASSES and "." not in name:
        raise ParserUnavailable(f"unknown tool-call parser {name!r}; choose one of {CHOICES}")
    try:
        found = load_object(PARSER_CLASSES.get(name, name), what="tool-call parser")
    except ConfigError as error:
        raise ParserUnavailable(str(error)) from error
    return _checked_parser(found, name)


def _checked_parser(found: object, name: str) -> ToolCallParser:
    """``found``, or an object of that class, if it is a parser; raises ParserUnavailable."""
    if isinstance(found, type):
        try:
            found = found()
        except Exception as error:  # the user's class may raise anything
            raise ParserUnavailable(
                f"tool-call parser {name!r}: the class is called without arguments, and that raises "
                f"{type(error).__name__}: {error}"
            ) from error
    problems = []
    if not _accepts(getattr(found, "parse", None), "text", [], reasoning_open=False):
        problems.append("a method parse(text, tools, *, reasoning_open=False)")
    if not _accepts(getattr(found, "format", None), []):
        problems.append("a method format(calls)")
    if not isinstance(getattr(found, "name", None), str):
        problems.append("a text `name`")
    if problems or not isinstance(found, ToolCallParser):
        raise ParserUnavailable(
            f"tool-call parser {name!r} is not a parser: it lacks {' and '.join(problems)}; "
            "tau2_slime.tokens.calls.types.ToolCallParser says what a parser has"
        )
    if found.name != name:
        try:
            found.name = name
        except AttributeError:
            raise ParserUnavailable(
                f"tool-call parser {name!r} has the name {found.name!r}, which cannot be set; a run records the name, "
                f"so make it {name!r} or an ordinary attribute"
            ) from None
    return found


def _accepts(function: object, *args: object, **kwargs: object) -> bool:
    """True if ``function`` can be called with these arguments, as far as its signature tells."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # a function of a C extension may have no signature
        return True
    return True


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
