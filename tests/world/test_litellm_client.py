"""litellm's clients follow no redirect: whoever asks through it, by whichever protocol, asks the address that was named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tau2_slime.chat.faults import Fault, of_exception
from tau2_slime.world import tau2_compat
from tau2_slime.world.litellm_client import load_litellm

MODELS: dict[str, dict[str, Any]] = {
    "anthropic/claude-haiku-4-5": {},
    "azure/mine": {"api_version": "2024-10-21"},
    "deepseek/deepseek-chat": {},
    "gemini/gemini-2.5-flash": {},
    "hosted_vllm/mine": {},
    "mistral/mistral-small-latest": {},
    "ollama_chat/mine": {},
    "openai/mine": {},
}
"""One of each kind of client that litellm has for chat completions."""


class Redirecting:
    """A server that sends everybody elsewhere, and the place where they would go."""

    def __init__(self) -> None:
        self.asked = self.followed = 0
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        if request.host.startswith("localhost"):
            self.followed += 1
            return web.json_response({})
        self.asked += 1
        return web.Response(status=307, headers={"Location": self.url.replace("127.0.0.1", "localhost")})


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Redirecting]:
    redirecting = Redirecting()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirecting.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    redirecting.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield redirecting
    await runner.cleanup()


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
@pytest.mark.parametrize("model", MODELS)
async def test_no_client_follows_a_redirect(server: Redirecting, model: str, blocking: bool) -> None:
    """A blocking call is what τ²'s own user class makes."""
    tau2_compat.load()
    litellm = load_litellm()
    request = {
        "model": model,
        "messages": [{"role": "user", "content": "my address is 1 Main Street"}],
        "api_base": server.url,
        "api_key": "sk-0123456789",
        "num_retries": 0,
        "max_retries": 0,
        "caching": False,
        "timeout": 30,
        **MODELS[model],
    }
    with pytest.raises(Exception) as raised:
        await (asyncio.to_thread(litellm.completion, **request) if blocking else litellm.acompletion(**request))
    assert (server.asked, server.followed) == (1, 0)
    failed = of_exception(raised.value)
    assert failed is not None and failed.fault in (Fault.REJECTED, Fault.UNAVAILABLE)


def test_every_place_where_litellm_makes_a_client_is_known() -> None:
    root = Path(load_litellm().__file__ or "").parent
    found = set()
    for folder in ("llms", "litellm_core_utils"):
        for path in (root / folder).rglob("*.py"):
            if re.search(r"follow_redirects\s*=\s*True", path.read_text(encoding="utf-8")):
                found.add(str(path.relative_to(root)))
    assert found <= {
        "llms/custom_httpx/http_handler.py",
        "llms/openai/common_utils.py",
        # These fetch the pictures that a message names; no message of ours has one.
        "litellm_core_utils/prompt_templates/factory.py",
        "litellm_core_utils/prompt_templates/image_handling.py",
        "litellm_core_utils/url_utils.py",
    }
