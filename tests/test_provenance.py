"""docs/provenance.md names what exists: components of τ², modules of this package, tests."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tau2_slime.world import domains
from tau2_slime.world.fast import known_releases
from tests.world.twins import Player, stock_reward

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "tau2_slime"
PAGE = (ROOT / "docs" / "provenance.md").read_text()
TABLE = PAGE.split("## Module by module")[1].split("\n## ")[0]


def resolve(name: str) -> object:
    """The object that a dotted path names."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError as error:
            if error.name and not name.startswith(error.name):
                raise
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tau2\.[\w.]+)`", PAGE))))
def test_a_component_of_tau2_is_where_the_page_says(name: str) -> None:
    resolve(name)


def test_the_tested_releases_are_the_proved_ones() -> None:
    assert set(re.findall(r"`((?:nvidia-)?tau2 [\d.]+)`", PAGE)) == set(
        known_releases.VERIFIED_SOURCES["core"].values()
    )


def modules() -> set[str]:
    """What the first columns of the tables name."""
    return {name for row in re.findall(r"^\| (`.+?) \|", TABLE, re.M) for name in re.findall(r"`([\w/]+)`", row)}


def test_the_modules_are_there() -> None:
    sources = PAGE.split("## Definitions and ideas")[1]
    named = modules() | {
        m for row in re.findall(r"^\| [^`|]+ \| (`.+?) \|", sources, re.M) for m in re.findall(r"`([\w/]+)`", row)
    }
    assert len(named) > 30
    for name in named:
        assert (PACKAGE / f"{name}.py").exists(), name


def uses_tau2(path: Path) -> bool:
    """True if the module imports τ², or the one module that imports it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # of importlib.import_module
            names = [node.value] if re.fullmatch(r"tau2\.[\w.]+", node.value) else []
        else:
            continue
        if any(n == "tau2" or n.startswith("tau2.") or n == "tau2_slime.world.tau2_compat" for n in names):
            return True
    return False


def test_no_module_that_uses_tau2_is_missing() -> None:
    using = {str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py") if uses_tau2(path)}
    assert {"episode/conversation", "world/scoring", "world/fast/known_releases"} <= using
    assert using - modules() == set()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(tests/[\w./]+\.py(?:::\w+)?)`", PAGE))))
def test_a_proof_is_there(named: str) -> None:
    file, _, test = named.partition("::")
    text = (ROOT / file).read_text()
    assert not test or re.search(rf"^(?:async )?def {test}\(", text, re.M), named


def test_one_shipped_task_has_an_assertion_that_raises() -> None:
    """For an agent that does nothing; all other environment assertions are answered."""
    raising = []
    for domain in ("airline", "retail", "telecom", "mock"):
        for task in domains.tasks(domain, "base"):
            if not task.evaluation_criteria or not task.evaluation_criteria.env_assertions:
                continue
            player = Player(domain, task)
            if player.reward() is ValueError:
                raising.append(task.id)
                assert stock_reward(player) is ValueError
    assert raising == ["create_task_1_with_env_assertions"]
