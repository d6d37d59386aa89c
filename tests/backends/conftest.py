"""What the tests of both verifiers doors need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.chat_server import ChatServer, chat_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A scripted chat-completions server, named by the variables that `evaluate` looks at."""
    with chat_server() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        yield served


@pytest.fixture
def no_model_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an address nor a key for the model."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
