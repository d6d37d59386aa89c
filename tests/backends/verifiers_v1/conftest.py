"""These tests need verifiers >= 0.4, which `tests/backends/test_doors.py` installs beside the project's environment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tau2_slime.backends.verifiers.versions import has_v1
from tests.backends.chat_server import ChatServer, chat_server

PACKAGE = Path(__file__).resolve().parents[3] / "environments" / "tau2_bench"
sys.path.insert(0, str(PACKAGE))

if not has_v1():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with chat_server() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield served
