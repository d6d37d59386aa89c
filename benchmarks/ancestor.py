"""The rollout function of an earlier recipe (github.com/simonucl/slime), for `peers.py --ancestor CHECKOUT`.

Its own code plays, from its checkout. What it takes from slime and sglang is stood in for here, as cheaply as can be: a
sample, a tokenizer, a POST, and the parser of ``<tool_call>`` blocks. So its cost is rather too low. It sends text to
/generate; ``python benchmarks/ancestor.py PORT`` is the scripted policy that takes text.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import sys
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web

from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.local.tokenizer import local_checkpoint

CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


class Fields:
    """An object with the fields that it is given."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)

    def model_dump(self) -> dict[str, Any]:
        return vars(self)


class Parser:
    """What `FunctionCallParser` of sglang does for Qwen's format."""

    def __init__(self, **_: Any) -> None:
        pass

    def parse_non_stream(self, text: str) -> tuple[str, list[Fields]]:
        calls = [json.loads(found) for found in CALL.findall(text)]
        said = CALL.sub("", text).strip()
        return said, [Fields(name=call["name"], parameters=json.dumps(call["arguments"])) for call in calls]


@cache
def tokenizer(checkpoint: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint)


def state(args: Any) -> SimpleNamespace:
    return SimpleNamespace(tokenizer=tokenizer(args.hf_checkpoint))


_session: ContextVar[aiohttp.ClientSession] = ContextVar("_session")


async def post(url: str, payload: dict[str, Any]) -> Any:
    async with _session.get().post(url, json=payload) as response:
        return await response.json()


def module(checkout: Path) -> ModuleType:
    """The recipe's module, with what it imports."""
    stand_ins: dict[str, dict[str, Any]] = {
        "slime.rollout.sglang_rollout": {"GenerateState": state},
        "slime.utils.http_utils": {"post": post},
        "slime.utils.types": {"Sample": Fields},
        "sglang.srt.function_call.function_call_parser": {"FunctionCallParser": Parser},
        "sglang.srt.managers.io_struct": {"Function": Fields, "Tool": Fields},
    }
    for name, members in stand_ins.items():
        parts = name.split(".")
        for length in range(1, len(parts)):
            parent = ModuleType(".".join(parts[:length]))
            parent.__path__ = []
            sys.modules.setdefault(parent.__name__, parent)
        leaf = sys.modules[name] = ModuleType(name)
        vars(leaf).update(members)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    sys.path.insert(0, str(checkout / "examples" / "tau2-bench"))
    return importlib.import_module("generate_with_tau2")


async def play(checkout: Path, block: dict[str, Any], known: dict[str, Any]) -> float:
    """Mean reward of the block's episodes, all at once."""
    recipe = module(checkout)
    args = SimpleNamespace(
        partial_rollout=False,
        hf_checkpoint=known["checkpoint"],
        sglang_router_ip="127.0.0.1",
        sglang_router_port=known["text"],
    )
    user = f"http://127.0.0.1:{known['user']}/v1"

    async def one(position: int) -> float:
        about = {"user_model": f"openai/{block['domain']}@{position}", "user_base_url": user}
        about |= {"user_api_key_var": "OPENAI_API_KEY", "domain": block["domain"], "task_split": "base"}
        sample = Fields(index=position, prompt=str(position), metadata={**about, "max_turns": 1000})
        played = await recipe.generate(args, sample, {"temperature": 1.0, "max_new_tokens": 4096})
        return float(played.reward)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        _session.set(session)
        rewards = await asyncio.gather(*map(one, block["positions"]))
    return sum(rewards) / len(rewards)


class TextPolicy(PolicyServer):
    """The scripted policy for clients that send text, as sglang takes it."""

    async def _handle_generate(self, request: web.Request) -> web.Response:
        payload = json.loads(await request.read())
        ids = tokenizer(str(self.checkpoint))(payload.pop("text"), add_special_tokens=False)["input_ids"]
        return web.json_response(await self.sampler.generate({**payload, "input_ids": ids}))


async def serve(port: int) -> None:
    await TextPolicy(local_checkpoint(), port=port, spelling=0.0).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
