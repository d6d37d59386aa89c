"""The doctor finds what is wrong before a training job does, and says how to mend it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tau2_slime.cli.checks import Verdict
from tau2_slime.cli.examine import Finding, Launch, examine
from tau2_slime.config.settings import Tau2Config
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.tokenizer import build_local_checkpoint
from tests.fresh import forget_users


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_local_checkpoint(tmp_path_factory.mktemp("checkpoint") / "local"))


async def findings(config: Tau2Config | None = None, **kwargs: Any) -> dict[str, Finding]:
    settings: dict[str, Any] = {"hf_checkpoint": None, "router": None, "user_models": [], "domains": ["mock"], **kwargs}
    config = config or Tau2Config(domain="mock", task_split="base")
    return {finding.subject: finding async for finding in examine(config, **settings)}


async def serve(routes: dict[str, Any]) -> tuple[web.AppRunner, str]:
    app = web.Application()
    for path, handler in routes.items():
        app.router.add_route("*", path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_a_good_set_up_has_no_failures(checkpoint: str) -> None:
    async with PolicyServer(checkpoint) as server:
        found = await findings(hf_checkpoint=checkpoint, router=server.url, user_models=["scripted"])
    assert {f.verdict for name, f in found.items() if name not in ("slime", "replay")} == {Verdict.OK}
    assert "hermes" in found["tokenizer"].text
    assert "1 of 1 workers healthy" in found["router"].text
    assert "log-probability" in found["generate"].text


async def test_what_cannot_be_replayed_is_told_before_anyone_asks_for_it(checkpoint: str) -> None:
    async with PolicyServer(checkpoint) as server:
        found = await findings(hf_checkpoint=checkpoint, router=server.url)
    assert found["replay"].verdict is Verdict.NOTE
    assert "--rollout-top-p" in found["replay"].text and "stock sglang-router drops" in found["replay"].text


async def test_a_dead_router_is_named(checkpoint: str) -> None:
    found = await findings(hf_checkpoint=checkpoint, router="http://127.0.0.1:9")
    assert found["router"].verdict is Verdict.FAIL
    assert "http://127.0.0.1:9" in found["router"].text
    assert found["generate"].verdict is Verdict.FAIL


async def test_a_router_without_http_in_front_is_told_what_to_write() -> None:
    found = await findings(router="127.0.0.1:30000")
    assert found["router"].verdict is Verdict.FAIL
    assert "http://host:port" in found["router"].text


async def test_a_router_without_healthy_workers(checkpoint: str) -> None:
    async def workers(_: web.Request) -> web.Response:
        return web.json_response({"workers": [{"url": "http://w", "is_healthy": False}]})

    runner, url = await serve({"/workers": workers})
    try:
        found = await findings(router=url)
    finally:
        await runner.cleanup()
    assert found["router"].verdict is Verdict.FAIL
    assert "none healthy" in found["router"].text


async def test_a_server_that_drops_log_probs_is_found(checkpoint: str) -> None:
    async def generate(request: web.Request) -> web.Response:
        ids = (await request.json())["input_ids"]
        meta = {"finish_reason": {"type": "length", "length": 1}, "prompt_tokens": len(ids), "completion_tokens": 1}
        return web.json_response({"text": "x", "output_ids": [5], "meta_info": meta})

    runner, url = await serve({"/generate": generate})
    try:
        found = await findings(hf_checkpoint=checkpoint, router=url)
    finally:
        await runner.cleanup()
    assert found["generate"].verdict is Verdict.FAIL
    assert "return_logprob" in found["generate"].text


async def test_a_checkpoint_that_is_none(tmp_path: Path) -> None:
    found = await findings(hf_checkpoint=str(tmp_path))
    assert found["tokenizer"].verdict is Verdict.FAIL
    assert str(tmp_path) in found["tokenizer"].text


async def test_a_user_model_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = await findings(user_models=["gpt-4o-mini"])
    assert found["user gpt-4o-mini"].verdict is Verdict.FAIL
    assert "OPENAI_API_KEY" in found["user gpt-4o-mini"].text


async def test_a_user_model_is_called_once() -> None:
    calls = 0

    async def chat(request: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        message = {"role": "assistant", "content": "I want to create a task."}
        return web.json_response(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": (await request.json())["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    runner, url = await serve({"/v1/chat/completions": chat})
    try:
        config = Tau2Config(domain="mock", task_split="base", user_base_url=f"{url}/v1")
        found = await findings(config, user_models=["openai/test"])
    finally:
        await runner.cleanup()
    assert found["user openai/test"].verdict is Verdict.OK
    assert "I want to create a task." in found["user openai/test"].text
    assert calls == 1


async def test_a_refused_key_of_the_pool_is_told_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        return web.json_response({"error": {"message": "no", "type": "x", "code": "x"}}, status=401)

    runner, url = await serve({"/v1/chat/completions": refuse})
    monkeypatch.setenv("MY_USER_KEY", "k")
    pool = [
        {"name": "calm", "model": "openai/x", "base_url": f"{url}/v1", "api_key_var": "MY_USER_KEY"},
        {"name": "house", "model": "openai/user", "base_url": "sglang:user"},
    ]
    try:
        config = Tau2Config.resolve({"domain": "mock", "task_split": "base", "user_simulators": pool}, {}, {})
        found = await findings(config, user_models=["calm", "house"])
    finally:
        forget_users()
        await runner.cleanup()
    assert found["user calm"].verdict is Verdict.FAIL
    assert "MY_USER_KEY" in found["user calm"].text
    assert found["user house"].verdict is Verdict.NOTE, "nothing serves it before the job runs"


async def test_a_split_that_the_domain_lacks() -> None:
    found = await findings(Tau2Config(domain="mock", task_split="train"))
    assert found["tau2"].verdict is Verdict.FAIL
    assert "task_split='train'" in found["tau2"].text


async def test_only_users_that_somebody_named_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    found = await findings()
    assert (found["user"].verdict, "--user-model" in found["user"].text) == (Verdict.NOTE, True)
    assert not [finding for finding in found.values() if finding.verdict is Verdict.FAIL]


async def test_one_cause_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = await findings(user_models=["gpt-4o-mini", "gpt-4o", "scripted", "openai/gpt-4.1"])
    users = {name: finding for name, finding in found.items() if name.startswith("user ")}
    (failed,) = [finding for finding in users.values() if finding.verdict is Verdict.FAIL]
    assert all(model in failed.subject for model in ("gpt-4o-mini", "gpt-4o", "openai/gpt-4.1"))
    assert "OPENAI_API_KEY" in failed.text
    assert users["user scripted"].verdict is Verdict.OK


async def test_sft_data_that_cannot_be_compared_is_told(tmp_path: Path) -> None:
    for folder, verdict, words in ((tmp_path, "note", "give --hf-checkpoint"), (tmp_path / "no", "fail", "is missing")):
        found = await findings(launch=Launch(sft_data=folder))
        assert found["sft data"].verdict == verdict and words in found["sft data"].text
