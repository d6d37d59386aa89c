"""Fixtures of the token tests."""

from __future__ import annotations

import pytest

from tau2_slime.tokens.template import chat_delta
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tests.tokens.rows import chat_of


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_calibrated_yet() -> None:
    """Mutation testing forks a process in which tests have run: what they calibrated would hide a mutant."""
    chat_delta._calibrated.clear()
    chat_of.cache_clear()


@pytest.fixture(scope="session")
def qwen3() -> ChatDelta:
    return chat_of("Qwen3-Instruct-2507")
