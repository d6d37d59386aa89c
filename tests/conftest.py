"""Hypothesis without clocks, and fixtures for tests against a real slime."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no bug
settings.load_profile("here")

NEEDED = "torch, tau2, litellm, httpx, omegaconf, pylatexenc, PIL, pybase64, tqdm"


@pytest.fixture(scope="session")
def slime() -> str:
    folder = os.environ.get("SLIME_DIR")
    if not folder:
        pytest.skip("no slime checkout: SLIME_DIR does not name one (git clone https://github.com/THUDM/slime)")
    return folder


@pytest.fixture(scope="session")
def python() -> str:
    name = os.environ.get("SLIME_PYTHON") or sys.executable
    probe = subprocess.run([name, "-c", f"import {NEEDED}"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"{name} lacks one of {NEEDED}: name an interpreter that has them in SLIME_PYTHON")
    return name
