"""`world/fast` is optional: a copy of the package without that folder gives the same answers and the same rewards."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tau2_slime"

PLAY = """
import json, sys
from tests import parity_play as play
from tau2_slime.world import domains, scoring

def chosen(domain):
    tasks = [t for t in domains.tasks(domain, "base") if not scoring.needs_judge(t)]
    if domain == "telecom":  # the user of the first breaks an object that τ² keeps on a class; the others use it
        broken = [t for t in tasks if "break_vpn" in str(t.initial_state)]
        return [broken[0], *(t for t in tasks if t not in broken)][:4]
    return tasks[: {"mock": 9, "retail": 2, "airline": 1}[domain]]

rewards = {}
for domain in ("mock", "retail", "airline", "telecom"):
    for task in chosen(domain):
        played, conversation = play.play_ours(domain, task, play.gold_script(task))
        reward = play.score_ours(conversation, played)
        rewards[f"{domain}/{task.id}"] = [played.messages, reward if isinstance(reward, dict) else str(reward)]
fast = sorted(name for name in sys.modules if name.startswith("tau2_slime.world.fast."))
print(json.dumps([fast, rewards], default=str))
"""


def play_gold(root: Path) -> tuple[list[str], dict[str, list[object]]]:
    """What the package in ``root`` does: (modules of the fast folder that it imported, task -> words and reward)."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", PLAY], cwd=root, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fast, rewards = json.loads(done.stdout.splitlines()[-1])
    return fast, rewards


def test_gold_play_is_the_same_with_the_folder_deleted(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "tau2_slime", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "parity_play.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    with_folder = play_gold(tmp_path)
    shutil.rmtree(tmp_path / "tau2_slime" / "world" / "fast")
    without_folder = play_gold(tmp_path)
    assert with_folder[0] and not without_folder[0]
    assert without_folder[1] == with_folder[1]
    earned = [reward["reward"] for _, reward in with_folder[1].values() if isinstance(reward, dict)]
    assert len(earned) > 10 and earned.count(1.0) >= len(earned) - 1


def test_a_folder_with_a_missing_module_is_an_error_and_not_a_slow_run(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "tau2_slime", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tau2_slime" / "world" / "fast" / "evaluation.py").unlink()
    code = "import tau2_slime.world.domains"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0 and "tau2_slime.world.fast.evaluation" in done.stderr


def imported_by(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_only_one_module_imports_from_the_folder() -> None:
    folder = PACKAGE / "world" / "fast"
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if folder not in path.parents and any(name.startswith("tau2_slime.world.fast") for name in imported_by(path))
    }
    assert users == {"world/environment.py"}
