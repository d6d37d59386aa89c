"""Who speaks the lines: a scripted user and a scripted policy, for every case of a run at once.

The user, and the policy where a door sends messages, are behind a chat-completions server; where a door sends tokens, the
policy's turns are spelled in them. Lines are read in order, one a request: what was asked does not matter.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from aiohttp import web

from tau2_slime.local.spelling import Speller
from tau2_slime.tokens.calls.types import ToolCallParser
from tests.backends.doors.cases import Case
from tests.parity_play import STOP, Call, Turn

SPELLING = 0.1
"""Share of sampled tokens that the tokenizer itself would have written otherwise."""
LIMITS: dict[str, Any] = {"max_turns": 10**6, "user_retries": 0, "drift_rate": 0.0}
"""Settings of every door: no limit but the script's own."""


class Stage:
    """Hands out the lines of many cases."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = {case.key: case for case in cases}
        self._spoken: Counter[tuple[str, str]] = Counter()
        self.asked: dict[str, list[dict[str, Any]]] = {}
        """Case -> the messages of the policy's last request, where it is asked in messages."""
        self.user_asked: dict[str, list[dict[str, Any]]] = {}
        """Case -> the messages of the simulator's last request."""

    def policy(self, key: str) -> tuple[int, Turn]:
        """The policy's next turn, and its number."""
        case = self.cases[key]
        last = Turn(calls=[Call("done", {}, id="done")]) if case.solo else Turn("Is there anything else?")
        return self._next(key, "policy", case.script.agent, last)

    def user(self, key: str) -> Turn:
        return self._next(key, "user", self.cases[key].script.user, Turn(f"No, thanks. {STOP}"))[1]

    def _next(self, key: str, side: str, turns: list[Turn], last: Turn) -> tuple[int, Turn]:
        number = self._spoken[key, side]
        self._spoken[key, side] += 1
        return number, turns[number] if number < len(turns) else last

    def settings(self, case: Case, url: str) -> dict[str, Any]:
        """`Tau2Config`'s keys for this case. ``url``: where `Chat` serves."""
        return {
            **LIMITS,
            "domain": case.domain,
            "task_split": case.split,
            "agent_type": "solo" if case.solo else "llm",
            "max_steps": case.script.max_steps,
            "max_errors": case.script.max_errors,
            "user_model": f"openai/{case.key}",
            "user_base_url": f"{url}/user/v1",
        }


class Chat:
    """The chat-completions server: ``/user/v1`` and ``/policy/v1``, the model's name is the case's key."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.url = stage, ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Chat:
        app = web.Application(client_max_size=64 * 2**20)
        app.add_routes([web.post("/{side}/v1/chat/completions", self._handle)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=3600)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        key, stage = body["model"], self.stage
        if request.match_info["side"] == "user":
            stage.user_asked[key] = body["messages"]
            turn = stage.user(key)
        else:
            stage.asked[key] = body["messages"]
            _, turn = stage.policy(key)
        return web.json_response(completion(key, turn))


def completion(model: str, turn: Turn) -> dict[str, Any]:
    """A chat completion that says ``turn``."""
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
            },
        }
        for call in turn.calls
    ]
    message = {"role": "assistant", "content": turn.content, "tool_calls": calls or None}
    reason = "tool_calls" if calls else "stop"
    return {
        "id": f"said-by-{model}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


class Voice:
    """The policy's turns as a model of one family samples them."""

    def __init__(self, tokenizer: Any, parser: ToolCallParser) -> None:
        self.tokenizer, self.parser = tokenizer, parser
        self._speller = Speller(tokenizer)

    def ids(self, key: str, number: int, turn: Turn, *, thinking: bool = False) -> list[int]:
        """Without the stop token; the same for the same turn of the same case, whoever asks.

        ``thinking``: the generation prompt has opened the reasoning.
        """
        text = ("The script says so.\n</think>\n\n" if thinking else "") + self.text(turn)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return self._speller.respell(ids, SPELLING, f"{key}/{number}")

    def text(self, turn: Turn) -> str:
        parts = [] if turn.content is None else [turn.content]
        return "\n".join([*parts, *map(self._call, turn.calls)])

    def _call(self, call: Call) -> str:
        if not isinstance(call.arguments, str):
            return self.parser.format([(call.name, call.arguments)])
        good = self.parser.format([(call.name, {})])
        if self.parser.name == "hermes":
            return good.replace("{}", call.arguments)
        return good[: good.rindex("</tool_call>")]  # the other formats read any text as a value: cut it short
