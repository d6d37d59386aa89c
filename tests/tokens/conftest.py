"""Fixtures of the token tests."""

from __future__ import annotations

import pytest

from tau2_slime.tokens.template.chat_delta import ChatDelta
from tests.tokens.rows import chat_of


@pytest.fixture(scope="session")
def qwen3() -> ChatDelta:
    return chat_of("Qwen3-Instruct-2507")
