"""A tool-call parser of the user's own, from outside the package, chosen by its dotted path."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.policy.checkpoint import build_profile
from tau2_slime.tokens.calls.parsers.hermes import HermesParser
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.calls.types import CallStatus, ParserUnavailable
from tests.tokens.rows import ROWS
from tests.tokens.support import TOOLS

PARSER = '''
"""Calls as `call:NAME`, one a line: a format that nobody else has."""

from tau2_slime.tokens.calls.schema_types import checked_call
from tau2_slime.tokens.calls.types import ParsedTurn


class MyParser:
    name = "mine"

    def parse(self, text, tools, *, reasoning_open=False):
        lines = text.splitlines()
        calls = [checked_call(line[5:], {}, tools, line) for line in lines if line.startswith("call:")]
        said = "\\n".join(line for line in lines if not line.startswith("call:"))
        return ParsedTurn(said or None, None, calls)

    def format(self, calls):
        return "\\n".join(f"call:{name}" for name, _ in calls)


ready = MyParser()
'''
_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with a name of its own: Python imports a name once."""
    path = tmp_path / f"parsers_of_a_user_{next(_numbers)}.py"
    path.write_text(PARSER)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize("attribute", ["MyParser", "ready"])
def test_it_reads_writes_and_has_the_name_by_which_it_was_chosen(module: Path, attribute: str) -> None:
    path = f"{module.stem}.{attribute}"
    parser = get_parser(path)
    assert parser.name == path
    turn = parser.parse("Hello.\n" + parser.format([("no_such_tool", {})]), TOOLS)
    assert turn.content == "Hello."
    assert [(call.name, call.status) for call in turn.calls] == [("no_such_tool", CallStatus.UNKNOWN_TOOL)]


def test_a_run_uses_it(module: Path, tmp_path: Path) -> None:
    tokenizer = ROWS["Qwen3-Instruct-2507"].tokenizer()
    chosen = build_profile(str(tmp_path), Tau2Config(tool_call_parser=f"{module.stem}.MyParser"), tokenizer)
    assert chosen.parser.name == f"{module.stem}.MyParser"
    with pytest.raises(ConfigError, match=rf"tool_call_parser='{module.stem}\.MyParsr'.*did you mean 'MyParser'"):
        build_profile(str(tmp_path), Tau2Config(tool_call_parser=f"{module.stem}.MyParsr"), tokenizer)


def test_the_packages_own_classes_can_be_named_as_well() -> None:
    path = "tau2_slime.tokens.calls.parsers.hermes.HermesParser"
    assert get_parser(path).name == path
    assert get_parser("hermes").name == "hermes"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (('    name = "mine"\n', ""), "it lacks a text `name`;"),
        (('"mine"', "7"), "it lacks a text `name`;"),
        (("def parse", "def read"), r"it lacks a method parse\(text, tools, \*, reasoning_open=False\);"),
        ((", *, reasoning_open=False", ""), r"it lacks a method parse\("),
        (("def format", "def write"), r"it lacks a method format\(calls\);"),
        (("format(self, calls)", "format(self, calls, tools)"), r"it lacks a method format\(calls\);"),
        (('    name = "mine"\n', "    format = 3\n"), r"it lacks a method parse|it lacks a text `name`"),
        (("class MyParser:", "def MyParser():\n    pass\n\n\nclass Other:"), "parse.* and .*format.* and .*`name`"),
        (
            ('    name = "mine"', "    def __init__(self, size):\n        self.name = str(size)"),
            "without arguments.*size",
        ),
        (('    name = "mine"', "    def __init__(self):\n        raise OSError('no file')"), "OSError: no file"),
        (
            ('    name = "mine"', "    @property\n    def name(self):\n        return 'mine'"),
            "'mine', which cannot be set",
        ),
    ],
)
def test_what_is_not_a_parser_is_told_at_once(module: Path, change: tuple[str, str], problem: str) -> None:
    module.write_text(PARSER.replace(*change).replace("ready = MyParser()", ""))
    with pytest.raises(ParserUnavailable, match=problem) as refusal:
        get_parser(f"{module.stem}.MyParser")
    assert f"'{module.stem}.MyParser'" in str(refusal.value)


def test_a_read_only_name_that_is_right_is_fine(module: Path) -> None:
    right = f"    @property\n    def name(self):\n        return '{module.stem}.MyParser'"
    module.write_text(PARSER.replace('    name = "mine"', right))
    assert get_parser(f"{module.stem}.MyParser").name == f"{module.stem}.MyParser"


def test_a_path_that_leads_nowhere_is_told(module: Path) -> None:
    with pytest.raises(
        ParserUnavailable, match=r"tool-call parser 'nowhere\.MyParser': Python finds no module 'nowhere'"
    ):
        get_parser("nowhere.MyParser")
    with pytest.raises(ParserUnavailable, match="is not a dotted path"):
        get_parser(f"{module.name}/MyParser")


class LlamaParser(HermesParser):
    opening, closing, arguments_key = "<function>", "</function>", "parameters"


def test_json_with_other_tags_and_another_key_takes_one_line() -> None:
    parser = LlamaParser()
    assert parser.parse(parser.format([("get_order_details", {"order_id": "#W1"})]), TOOLS).calls[0].arguments == {
        "order_id": "#W1"
    }
    good, other, bare = parser.parse(
        '<function>{"name": "get_order_details", "parameters": "{\\"order_id\\": 7}"} </function>\n'
        '<function>{"name": "get_order_details", "arguments": {"order_id": "#W1"}}</function>'
        "<function>get_order_details</function>",
        TOOLS,
    ).calls
    assert (good.status, good.arguments) == (CallStatus.BAD_ARGUMENTS, {"order_id": 7})
    assert (other.status, other.arguments) == (CallStatus.OK, {"order_id": "#W1"})
    assert bare.status == CallStatus.INVALID_JSON
    shape = 'write {"name": <tool name>, "parameters": {…}}'
    assert bare.error == f"The tool call is not valid JSON: it begins with 'get_order_details'; {shape}."
