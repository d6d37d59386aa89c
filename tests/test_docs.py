"""What README and docs name exists, and the rooms of the package are those of the architecture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tau2_slime.config.settings import Tau2Config

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tau2_slime"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_configuration_page_lists_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "docs" / "configuration.md").read_text(), re.M))
    assert set(rows) == set(Tau2Config.model_fields)
    for name, field in Tau2Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default in (None, (), {}):
            assert rows[name] == "-", name
        else:
            assert rows[name].strip("`") == repr(default).replace("'", ""), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    named = re.findall(r"(?:python |ARGS=)((?:tests|benchmarks|data_prep)/[\w./]+)", text)
    for target in [*(page.parent / t for t in targets), *(ROOT / n for n in named)]:
        assert target.exists(), f"{page.name} names {target}"


def rooms() -> set[str]:
    """What the first cells of the architecture's tables name, as paths in the package."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    tables = text.split("## The rooms")[1].split("**Where the next thing goes**")[0]
    found, room = set(), ""
    for line in tables.splitlines():
        if line.startswith("**"):
            room = "".join(re.findall(r"^\*\*`([\w/]+/)`", line))
        elif line.startswith("| `"):
            found |= {room + name.rstrip("/") for name in re.findall(r"`([\w/]+)`", line.split(" | ")[0])}
    return found


def test_every_module_in_the_architecture_exists() -> None:
    for name in rooms():
        assert (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir(), name


def test_every_module_stands_in_the_architecture() -> None:
    named = rooms()
    for path in PACKAGE.rglob("*.py"):
        module = path.relative_to(PACKAGE).with_suffix("")
        folders = {str(folder) for folder in module.parents} - {"world", "tokens", "evaluation", "."}
        assert path.name == "__init__.py" or str(module) in named or folders & named, module


def imported(path: Path) -> set[str]:
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return out


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("world", ("tokens", "policy", "transcript", "trainable_agents", "solve", "episode", "assembly", "evaluation")),
        ("tokens", ("world", "policy", "transcript", "trainable_agents", "solve", "episode", "assembly", "evaluation")),
        ("", ("backends",)),
    ],
)
def test_imports_point_one_way(room: str, never: tuple[str, ...]) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        if path.is_relative_to(PACKAGE / "backends"):
            continue
        assert not {name for name in imported(path) if name.startswith(tuple(f"tau2_slime.{n}" for n in never))}, path


def test_only_the_compatibility_module_imports_slime() -> None:
    """How slime's releases differ is found out in one place."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(name == "slime" or name.startswith("slime.") for name in imported(path))
    }
    assert users == {"slime_adapter/compat.py"}
