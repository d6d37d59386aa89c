"""Run code against a real slime checkout, named by SLIME_DIR, in a process of its own.

What slime's data modules import and this machine lacks (ray, torch, httpx) is served as an empty stub: none of it takes
part in reading prompt data. SLIME_PYTHON names another interpreter than the one of the tests, such as one with torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_PRELUDE = """
import importlib.abc, importlib.machinery, json, sys, types

class Stub(types.ModuleType):
    __path__ = []
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            return type(name, (), {})
        return lambda *args, **kwargs: args[0] if args else None

class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    # Last in the path: asked only for what is not installed.
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in ("ray", "torch", "httpx"):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)
    def create_module(self, spec):
        return Stub(spec.name)
    def exec_module(self, module):
        pass

sys.meta_path.append(Stubs())
given = json.load(sys.stdin)
"""


def run_in_slime(code: str, given: Any) -> Any:
    """What ``code`` leaves in ``answer`` (JSON), with ``given`` at hand and slime importable; skips without a checkout."""
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    program = f"{_PRELUDE}\n{code}\nprint('ANSWER ' + json.dumps(answer))"
    done = subprocess.run(
        [os.environ.get("SLIME_PYTHON") or sys.executable, "-c", program],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])},
        cwd=Path(folder),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("ANSWER ")[-1])
