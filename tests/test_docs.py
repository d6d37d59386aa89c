"""What README and docs say is there: files, headings, settings, options, packages. And how they say it: the house style."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from tau2_slime.cli.commands import app
from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.command import parser
from tests.prose import sentence_lengths, word_count

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tau2_slime"
DOCS = ROOT / "docs"
COUNTED = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
PAGES = [*COUNTED, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

MOST_WORDS_OF_THE_README = 900
MOST_WORDS_OF_ALL = 20_264
"""15,000, a page of 700 for each of: learning, tasks, synthetic tasks, strategies, diagnosis; 300 for SFT in the guide;
500 for scale; 499 for the viewer; 350 for banking; 115 for playing, few-shot and other additions."""
LONGEST_MEAN_SENTENCE = 20

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


# ---- files and headings that a page names -------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@each_page
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        if target.parent.name == "images" and not target.parent.exists():
            continue  # the screenshots are made apart from the pages
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@each_page
def test_every_page_of_the_docs_is_linked_from_the_index(page: Path) -> None:
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)#]+)", (DOCS / "README.md").read_text())}
    assert page.resolve() in linked | {(DOCS / "README.md").resolve(), (ROOT / "README.md").resolve()}


@each_page
def test_a_file_of_the_repository_that_a_page_names_is_there(page: Path) -> None:
    """Paths that begin with a folder of the repository or of the package; other paths are the reader's own."""
    for path in re.findall(r"(?<![\w/.$-])((?:[\w-]+/)+[\w-]+\.(?:py|sh|md|txt|json|yaml))\b", page.read_text()):
        folder = path.split("/")[0]
        roots = [root for root in (ROOT, PACKAGE) if (root / folder).is_dir()]
        if roots and folder not in ("data", "runs") and not path.startswith("scripts/models/"):  # the last are slime's
            assert any((root / path).exists() for root in roots), path


@each_page
def test_a_module_or_function_of_the_package_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    if page.name == "CHANGELOG.md":  # the first cells of its table name what is gone
        text = re.sub(r"^\| [^|]+ \|", "|", text, flags=re.MULTILINE)
    for name in set(re.findall(r"\btau2_slime(?:\.\w+)+", text)):
        assert is_defined(name), name


def is_defined(name: str) -> bool:
    """True for a module of the package, and for a name that one of its modules assigns, defines or imports."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.exists():
            return length == len(parts) or re.search(rf"\b{parts[length]}\b", file.read_text()) is not None
    return False


def test_the_call_tree_names_functions_and_classes_of_the_files_beside_them() -> None:
    tree = re.search(r"```\n(generate .+?)```", (DOCS / "architecture.md").read_text(), re.DOTALL)
    assert tree is not None
    rows = re.findall(r"([A-Za-z_][\w.]*)\s+([\w/]+\.py)\s", tree[1])
    assert len(rows) == len(tree[1].strip().splitlines())
    for name, path in rows:
        defined = definitions(PACKAGE / path)
        assert set(name.split(".")) <= defined, f"{path} does not define {name}"


def definitions(path: Path) -> set[str]:
    """Names of the functions, methods and classes that a module defines."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}


# ---- settings and options -----------------------------------------------------------------------------------------------


def rows_of(page: str) -> dict[str, str]:
    """First and second cell of the table rows before a page's first section, if the first cell is one name in code."""
    start = (DOCS / page).read_text().split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", start, re.MULTILINE))


def test_the_configuration_page_lists_every_key_with_its_default() -> None:
    rows = rows_of("configuration.md")
    assert set(rows) == set(Tau2Config.model_fields)
    for name, field in Tau2Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default in (None, (), {}):
            assert rows[name] == "-", name
        else:
            assert rows[name].strip("`") == repr(default).replace("'", ""), name


def test_the_page_on_reward_shaping_lists_every_part_with_its_default() -> None:
    rows = {name: cell.strip("`") for name, cell in rows_of("reward_shaping.md").items()}
    for name, field in RewardShaping.model_fields.items():
        if isinstance(field.default, float):
            assert rows[name] == repr(field.default), name


@functools.cache
def options() -> dict[str, set[str]]:
    """The options of each subcommand of ``tau2-slime``, with those of its own subcommands."""
    group = get_command(app)
    found = {name: options_of(command) | {"--help"} for name, command in group.commands.items()}
    return {**found, "data": {word for option in parser()._actions for word in option.option_strings}}


def options_of(command: Any) -> set[str]:
    """Those of a command, or of all commands of a group of commands."""
    own = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
    return own.union(*(options_of(one) for one in getattr(command, "commands", {}).values()))


@each_page
def test_a_command_that_a_page_shows_has_these_options(page: Path) -> None:
    text = re.sub(r"\\\n\s*", "", page.read_text())
    for command, rest in re.findall(r"\btau2-slime ([a-z][a-z0-9-]*)([^\n`]*)", text):
        if command not in options():
            assert command in ("with", "rollout's"), f"tau2-slime {command}"
            continue
        words = re.split(r"\s#\s", rest)[0]
        assert set(re.findall(r"--[a-z][a-z-]*", words)) <= options()[command], f"tau2-slime {command}{rest}"


@pytest.mark.parametrize(("page", "command"), [("evaluation.md", "eval"), ("inspector.md", "inspect")])
def test_an_option_that_a_guide_names_alone_is_one_of_its_commands(page: str, command: str) -> None:
    known = options()[command] | options()["compare"] | options()["convert-v1"]
    named = set(re.findall(r"`(--[a-z][a-z-]*)[ `]", (DOCS / page).read_text()))
    assert named - known <= {"--eval-config", "--save-debug-rollout-data", "--dump-details"}


# ---- packages -----------------------------------------------------------------------------------------------------------


def rooms() -> list[set[str]]:
    """The packages and top-level modules of the architecture's table, row by row."""
    table = (DOCS / "architecture.md").read_text().split("\n## Packages\n")[1].split("\n## ")[0]
    return [set(re.findall(r"`(\w+)`", cell)) for cell in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)]


def imported_rooms(path: Path) -> set[str]:
    """Which other packages or top-level modules a module imports, type checking left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom) and child.module:
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            visit(child)

    visit(ast.parse(path.read_text()))
    return {name.split(".")[1] for name in found if name.startswith("tau2_slime.")}


def room_of(path: Path) -> str:
    """The package or top-level module that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_the_packages_of_the_architecture_are_those_on_disk() -> None:
    on_disk = {room_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    named = [name for row in rooms() for name in row]
    assert len(named) == len(set(named))
    assert set(named) == on_disk


def test_a_package_imports_only_packages_in_rows_above_its_own() -> None:
    level = {name: number for number, row in enumerate(rooms()) for name in row}
    for path in PACKAGE.rglob("*.py"):
        own = room_of(path)
        for other in imported_rooms(path) & level.keys() - {own}:
            assert level[other] < level[own], f"{path.relative_to(ROOT)} imports {other}"


def test_only_the_compatibility_module_imports_slime() -> None:
    """How slime's releases differ is found out in one place."""
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "slime" for name in names):
                users.add(str(path.relative_to(PACKAGE)))
    assert users == {"slime_adapter/compat.py"}


# ---- the house style ----------------------------------------------------------------------------------------------------


def test_the_pages_are_short_enough_to_be_read() -> None:
    words = {page: word_count(page.read_text()) for page in COUNTED}
    assert words[ROOT / "README.md"] <= MOST_WORDS_OF_THE_README
    assert sum(words.values()) <= MOST_WORDS_OF_ALL


@each_page
def test_sentences_are_short(page: Path) -> None:
    lengths = sentence_lengths(page.read_text())
    assert sum(lengths) / max(len(lengths), 1) <= LONGEST_MEAN_SENTENCE


@given(st.lists(st.integers(min_value=4, max_value=40), min_size=1, max_size=8))
def test_a_sentence_is_as_long_as_it_was_written(lengths: list[int]) -> None:
    page = " ".join(" ".join(["word"] * (length - 1)) + " `a few words`." for length in lengths)
    assert sentence_lengths(page) == lengths


def test_code_tables_and_headings_count_as_words_only() -> None:
    page = (
        "# A heading of five words\n\n```\nsome code that is long\n```\n\n| a | b |\n\nOne sentence with five words.\n"
    )
    assert sentence_lengths(page) == [5]
    assert word_count(page) == 6 + 1 + 5 + 1 + 5 + 5


def test_the_configuration_page_names_every_tool_call_format() -> None:
    from tau2_slime.tokens.families import PARSER_CLASSES

    (row,) = [
        line for line in (ROOT / "docs" / "configuration.md").read_text().splitlines() if "`tool_call_parser`" in line
    ]
    assert [name for name in PARSER_CLASSES if name not in row] == []
