"""These tests need verifiers >= 0.4, which `tests/backends/test_doors.py` installs beside the project's environment."""

from __future__ import annotations

import sys
from pathlib import Path

from tau2_slime.backends.verifiers.versions import has_v1

PACKAGE = Path(__file__).resolve().parents[3] / "environments" / "tau2_bench"
sys.path.insert(0, str(PACKAGE))

if not has_v1():
    collect_ignore_glob = ["test_*.py"]
