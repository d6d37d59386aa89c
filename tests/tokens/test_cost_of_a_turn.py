"""What a turn costs does not grow with the conversation: encoded, decoded, rendered, written and hashed, counted not timed.

The one exception is the request itself, which holds every token so far: its bytes are joined once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from tau2_slime.policy.sampling import Policy
from tau2_slime.runtime import http
from tau2_slime.tokens import ledger
from tau2_slime.tokens.calls.registry import get_parser
from tau2_slime.tokens.engine import SglangEngine
from tau2_slime.tokens.template.chat_delta import ChatDelta
from tests.tokens.rows import token
from tests.tokens.support import SYSTEM, TOOLS, spelled_out, user

CALL = '<tool_call>\n{"name": "get_order", "arguments": {"order_id": "#W1"}}\n</tool_call>'


@pytest_asyncio.fixture
async def server(qwen3: ChatDelta) -> AsyncIterator[SimpleNamespace]:
    """It samples the same call every time, and keeps what it was asked."""
    said = [*spelled_out(qwen3.template.tokenizer, CALL), token(qwen3, "<|im_end|>")]
    served = SimpleNamespace(bodies=[], url="", said=said)

    async def answer(request: web.Request) -> web.Response:
        served.bodies.append(await request.read())
        meta = {
            "output_token_logprobs": [[-0.5, one, None] for one in said],
            "finish_reason": {"type": "stop", "matched": said[-1]},
        }
        return web.json_response({"text": "", "output_ids": said, "meta_info": meta})

    app = web.Application(client_max_size=2**24)
    app.router.add_post("/generate", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture
def counted(qwen3: ChatDelta, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Characters and bytes by what was done with them."""
    counts: Counter[str] = Counter()
    template = qwen3.template

    def count(owner: Any, name: str, what: str, size: Any) -> None:
        original = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            counts[what] += size(args, result)
            return result

        monkeypatch.setattr(owner, name, counting)

    count(template, "encode", "encoded", lambda args, _: len(args[0]))
    count(template, "decode", "decoded", lambda args, _: len(args[0]))
    count(template, "render", "rendered", lambda _, text: len(text))
    count(http, "write_json", "written", lambda _, raw: len(raw))
    count(hashlib, "sha256", "hashed", lambda args, _: len(args[0]) if args else 0)
    numbers = SimpleNamespace(dumps=orjson.dumps)
    count(numbers, "dumps", "written", lambda _, raw: len(raw))
    monkeypatch.setattr(ledger, "orjson", numbers)
    return counts


async def costs_of(qwen3: ChatDelta, server: SimpleNamespace, counts: Counter[str], turns: int) -> list[Counter[str]]:
    policy = Policy(
        delta=qwen3,
        parser=get_parser("hermes"),
        engine=SglangEngine(server.url, retries=0),
        sampling_params={"temperature": 1.0},
        max_new_tokens=256,
    )
    transcript, costs = policy.transcript(list(TOOLS)), []
    new: list[dict[str, Any]] = [dict(SYSTEM), dict(user("Where are my orders?"))]
    for number in range(100, 100 + turns):
        counts.clear()
        turn = await transcript.turn(new)
        costs.append(Counter(counts))
        call = {"id": f"c{number}", "type": "function", "function": {"name": turn.calls[0].name, "arguments": {}}}
        transcript.chat.append({"role": "assistant", "content": None, "tool_calls": [call]})
        new = [{"role": "tool", "tool_call_id": f"c{number}", "content": f"order {number}: on its way " * 10}]
    assert transcript.ledger is not None
    last = orjson.loads(server.bodies[-1])["input_ids"]
    assert [*last, *server.said] == transcript.ledger.tokens
    return costs


async def test_a_turn_costs_its_new_text_after_ten_turns_and_after_sixty(
    qwen3: ChatDelta, server: SimpleNamespace, counted: Counter[str]
) -> None:
    qwen3._deltas.clear()
    ten = await costs_of(qwen3, server, counted, 10)
    qwen3._deltas.clear()
    sixty = await costs_of(qwen3, server, counted, 60)
    later = [*ten[1:], *sixty[1:]]  # the first turn writes the system prompt and the tools
    assert all(cost == later[0] for cost in later)
    new_ids = len(server.said) + later[0]["encoded"]  # no token is shorter than a character
    assert later[0]["hashed"] == 0 and 0 < later[0]["written"] < 8 * new_ids + 300
    assert len(server.bodies[-1]) > 30 * later[0]["written"]  # what grows is the request
