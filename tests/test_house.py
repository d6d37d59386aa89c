"""The structure of the package: few doors, imports in one direction, one door to slime and to the fast path, real types."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tau2_slime"
DOORS = {
    *("generate_with_tau2", "hooks", "eval_rollout", "train", "rollout", "trainable_agents"),  # users name them
    *("errors", "outcome"),  # the vocabulary
}
# A room may import the rooms before it, never one behind it.
ORDER = (
    *(
        "errors",
        "outcome",
        "runtime",
        "config",
        "chat",
        "tokens",
        "world",
        "policy_rules",
        "local",
        "episode",
        "tasks",
        "synth",
        "data",
        "policy",
    ),
    *(
        "slime_adapter",
        "observe",
        "inspector",
        "diagnosis",
        "view",
        "trainable_agents",
        "train",
        "eval_rollout",
        "generate_with_tau2",
        "hooks",
    ),
    *("export", "play", "rollout", "evaluation", "backends", "cli"),
)
MAX_FLOORS = 11
MAX_BARE_ANY = 0.02
Graph = dict[str, set[str]]


@cache
def trees() -> dict[str, ast.Module]:
    """Dotted module name below the package -> its syntax tree."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imported(tree: ast.AST) -> set[str]:
    """Every dotted name that ``tree`` imports, those under TYPE_CHECKING left out."""
    names: set[str] = set()
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            names |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom) and child.module:
            names |= {child.module, *(f"{child.module}.{alias.name}" for alias in child.names)}
        names |= imported(child)
    return names


def is_face(tree: ast.Module) -> bool:
    """True for an ``__init__`` that only hands on names: importing from it is importing what it hands on."""
    return not any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body)


@cache
def modules() -> Graph:
    """Module -> own modules that it imports."""
    packages = {name for name in trees() if (PACKAGE / name.replace(".", "/")).is_dir()}
    real = {name for name, tree in trees().items() if name not in packages or not is_face(tree)}
    out: Graph = {}
    for name in real:
        own = {n.removeprefix("tau2_slime.") for n in imported(trees()[name]) if n.startswith("tau2_slime.")}
        out[name] = (own & real) - {name}
    return out


@cache
def rooms() -> Graph:
    out: Graph = defaultdict(set)
    for name, uses in modules().items():
        room = name.split(".")[0]
        out[room] |= {use.split(".")[0] for use in uses} - {room}
    return out


def circles(graph: Graph) -> list[str]:
    """Every node that can reach itself."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph.get(start, ()))
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += graph.get(node, ())
        return seen

    return [node for node in graph if node in reachable(node)]


def test_at_the_top_there_are_only_doors_and_the_vocabulary() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == DOORS
    assert len(DOORS) <= 8


@pytest.mark.parametrize("graph", [modules, rooms])
def test_nothing_imports_in_a_circle(graph: object) -> None:
    assert circles(graph()) == []  # type: ignore[operator]


def test_rooms_import_in_one_direction() -> None:
    assert set(rooms()) <= set(ORDER), "a new room needs its place in ORDER"
    upwards = [
        f"{name} imports {use}"
        for name, uses in modules().items()
        for use in uses
        if ORDER.index(use.split(".")[0]) > ORDER.index(name.split(".")[0])
    ]
    assert upwards == []
    assert "tokens" not in rooms()["world"]
    assert "world" not in rooms()["tokens"]


def test_the_house_is_not_too_high() -> None:
    @cache
    def height(room: str) -> int:
        return 1 + max((height(use) for use in rooms().get(room, ())), default=0)

    assert max(map(height, rooms())) <= MAX_FLOORS


def test_slime_is_imported_in_its_adapter_only_and_inside_functions() -> None:
    def asks_for_slime(tree: ast.AST) -> bool:
        return any(name.split(".")[0] == "slime" for name in imported(tree))

    assert {name.split(".")[0] for name, tree in trees().items() if asks_for_slime(tree)} <= {"slime_adapter"}
    for name, tree in trees().items():
        for node in tree.body:
            assert isinstance(node, ast.FunctionDef | ast.ClassDef) or not asks_for_slime(node), name


def test_the_fast_path_has_one_door() -> None:
    users = {name for name, uses in modules().items() if any(f"{use}.".startswith("world.fast.") for use in uses)} - {
        name for name in modules() if name.startswith("world.fast")
    }
    assert len(users) <= 1, users


def bare_any(tree: ast.AST) -> tuple[int, int]:
    """``(signature slots, those that are annotated with nothing but Any)``."""
    slots = bare = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            named = [arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs) if arg.arg not in ("self", "cls")]
            annotations = [*(arg.annotation for arg in named), node.returns]
            slots += len(annotations)
            bare += sum(isinstance(found, ast.Name) and found.id == "Any" for found in annotations)
    return slots, bare


def test_signatures_have_real_types() -> None:
    counted = {name: bare_any(tree) for name, tree in trees().items()}
    share = sum(bare for _, bare in counted.values()) / sum(slots for slots, _ in counted.values())
    assert share <= MAX_BARE_ANY, sorted(((bare, name) for name, (_, bare) in counted.items() if bare), reverse=True)


@pytest.mark.parametrize("door", sorted(DOORS))
def test_no_door_takes_or_gives_anything_whatever(door: str) -> None:
    assert bare_any(trees()[door])[1] == 0


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
