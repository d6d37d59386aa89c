"""SkyRL's server of Tinker's API on a CPU: a service for the Tinker door that nobody here wrote.

    python skyrl_server.py api --base-model DIR --backend jax --port 8123 ...

It runs in an environment of its own (``make learn-tinker``). Three things stand in the way of skyrl 0.4.0 from PyPI on
Python 3.11 with a tinker SDK of 0.34 or later. They are set right here before its own code runs:

* a `typing.TypedDict` in a pydantic model, which needs Python 3.12 or typing_extensions' own;
* the API starts its engine with ``uv run`` and the flags of its parent process, where there may be no uv;
* the SDK wants the ids of a sample's sequences with the answer of ``/asample``, which this release does not send.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import typing
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import typing_extensions

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SequenceIds:
    """ASGI middleware: adds ``sample_sequence_ids`` to the answers of ``/api/v1/asample``."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/api/v1/asample":
            await self.app(scope, receive, send)
            return
        request = b""
        while True:
            message = await receive()
            request += message.get("body", b"")
            if not message.get("more_body"):
                break
        head: Message = {}
        answer = b""

        async def replay() -> Message:
            return {"type": "http.request", "body": request, "more_body": False}

        async def collect(message: Message) -> None:
            nonlocal answer
            if message["type"] == "http.response.start":
                head.update(message)
                return
            answer += message.get("body", b"")
            if message.get("more_body"):
                return
            if head["status"] == 200:
                told = json.loads(answer)
                count = json.loads(request).get("num_samples") or 1
                told["sample_sequence_ids"] = [f"{told['request_id']}-{i}" for i in range(count)]
                answer = json.dumps(told).encode()
            kept = [(name, value) for name, value in head["headers"] if name != b"content-length"]
            await send({**head, "headers": [*kept, (b"content-length", str(len(answer)).encode())]})
            await send({"type": "http.response.body", "body": answer})

        await self.app(scope, replay, collect)


def main(part: str, arguments: list[str]) -> None:
    """``part``: api, or engine, which the API starts itself."""
    typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]
    if part == "engine":
        sys.argv = ["skyrl.tinker.engine", *arguments]
        runpy.run_module("skyrl.tinker.engine", run_name="__main__")
        return
    import uvicorn
    from skyrl.tinker import api
    from skyrl.tinker.config import EngineConfig, add_model, config_to_argv

    def engine_command(_: list[str], config: EngineConfig) -> list[str]:
        return [sys.executable, __file__, "engine", *config_to_argv(config)]

    parser = argparse.ArgumentParser(description="SkyRL's server of Tinker's API, on this machine only")
    add_model(parser, EngineConfig)
    parser.add_argument("--port", type=int, required=True)
    options = vars(parser.parse_args(arguments))
    api._build_uv_run_cmd_engine = engine_command
    api.app.add_middleware(SequenceIds)
    port = options.pop("port")
    api.app.state.engine_config = EngineConfig.model_validate(options)
    uvicorn.run(api.app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
