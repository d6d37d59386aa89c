"""The same run everywhere, the package's own small checkpoint, and fixtures for tests against a real slime."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

# The same examples in every run, so that a failure belongs to the change that it meets; to look further:
# pytest --hypothesis-seed=random. And a busy machine is no bug.
settings.register_profile("here", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

# What a command prints is read here, whoever would like it in colours.
for _name in ("CLICOLOR_FORCE", "FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE"):
    os.environ.pop(_name, None)

# Every server of the tests is on this machine: a proxy of the environment has no part in it.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1", "localhost"]))

# `make test-fast`: whole files that need neither a server of their own nor a minute. Together: less than 90 seconds.
FAST = {
    f"tests/{folder}test_{name}.py"
    for folder, names in {
        "": "advantages config docs engine_replies eval_rollout hooks house outcome own_functions passk shaping "
        "slime_compat user_pool",
        "tokens/": "chat_delta control_tokens every_parser families hermes_calls junctions ledger own_parser replay "
        "schema_types tool_calls xml_like_calls",
        "world/": "custom_users domains guards quality scoring shared_db",
        "evaluation/": "compare plan records statistics",
        "faults/": "own_parts",
    }.items()
    for name in names.split()
}


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    for item in items:
        if item.path.relative_to(config.rootpath).as_posix() in FAST:
            item.add_marker("fast")


NEEDED = "torch, tau2, litellm, httpx, omegaconf, pylatexenc, PIL, pybase64, tqdm"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's own small checkpoint: a tokenizer and a chat template without weights."""
    from tau2_slime.local.tokenizer import build_local_checkpoint

    return build_local_checkpoint(tmp_path_factory.mktemp("local") / "checkpoint")


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    loaded: Tokenizer = AutoTokenizer.from_pretrained(str(checkpoint))
    return loaded


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


@pytest.fixture(autouse=True)
def settings_are_read_anew() -> None:
    """A test that looks at how settings are read must not get what another test has read."""
    from tau2_slime.config import settings

    settings._resolved.clear()
    settings._simulator_without_entry.cache_clear()


@pytest.fixture
def json_written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each value that is written as JSON for a request, as the test goes on."""
    from tau2_slime.runtime import http

    written: list[int] = []
    original = http.write_json

    def counting(value: object) -> bytes:
        raw = original(value)
        written.append(len(raw))
        return raw

    monkeypatch.setattr(http, "write_json", counting)
    return written
