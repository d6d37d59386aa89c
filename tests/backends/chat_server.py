"""A chat-completions server that plays a task's gold script, told apart by the model's name. It keeps nothing: like a model,
it reads the case and its place in the script from the messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tau2_slime.local.gold import ASK_REFERENCE, GoldScript, find_reference
from tau2_slime.world import domains

MODELS = (
    "gold",
    "wrong",
    "broken",
    "silent",
    "babbling",
    "cut",
    "overlong",
    "failing",
    "thinking",
    "aloud",
    "flaky",
    "filtered",
    "nameless",
    "fading",
)


@dataclass
class ChatServer:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """A server on a free port of 127.0.0.1, for as long as the block runs."""
    served = ChatServer("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.requests.append(body)
            status, answer = reply(body["model"], body["messages"])
            again = sum(request["messages"] == body["messages"] for request in served.requests) % 2 == 0
            if body["model"] == "flaky" and not again:  # every turn has to be asked for twice
                status, answer = 503, {"error": {"message": "come back later", "type": "server_error", "code": 503}}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = (
            1024  # many connect at once; with the usual five, the kernel lets the others wait for seconds
        )

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(model: str, messages: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """HTTP status and body of the answer of ``model`` (one of `MODELS`)."""
    if model == "overlong":
        text = "This model's maximum context length is 10 tokens. However, your messages resulted in 99 tokens."
        return 400, {"error": {"message": text, "type": "invalid_request_error", "code": "context_length_exceeded"}}
    if model == "failing":
        return 400, {"error": {"message": "the model is broken", "type": "invalid_request_error", "code": "broken"}}
    message = speak(model, messages)
    reason = {"cut": "length", "filtered": "content_filter"}.get(model) or (
        "tool_calls" if message["tool_calls"] else "stop"
    )
    return 200, {
        "id": f"reply-{len(messages)}",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }


def speak(model: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant message that follows ``messages``."""
    if model in ("silent", "filtered"):
        return _message("")
    if model == "babbling":  # far more calls than anybody can use
        said = _message(None, ("get_users", "{}"))
        return {**said, "tool_calls": [{**said["tool_calls"][0], "id": f"c{i}"} for i in range(200)]}
    if model == "thinking":  # gold, with thoughts, and with spaces that a careless client would lose
        said = speak("gold", messages)
        words = None if said["content"] is None else f"  {said['content']} \n"
        return {**said, "content": words, "reasoning_content": f" thought {len(messages)}\n", "refusal": None}
    if model == "nameless":  # gold from a server that gives its calls no ids
        said = speak("gold", messages)
        return {**said, "tool_calls": [{**call, "id": ""} for call in said["tool_calls"] or []] or None}
    if model == "fading":  # words first, then blanks
        return _message("Well..." if sum(m["role"] == "assistant" for m in messages) < 3 else "  ")
    if model == "aloud":  # gold from a server without a reasoning parser
        said = speak("gold", messages)
        return {**said, "content": f"a secret\n</think>\n\n{said['content'] or ''}"}
    place = next((i for i, m in enumerate(messages) if m["role"] == "user" and find_reference(str(m["content"]))), None)
    if place is None:
        return _message(ASK_REFERENCE)
    reference = find_reference(str(messages[place]["content"]))
    assert reference is not None
    script = GoldScript.from_task(domains.find_task(reference.domain, reference.split, task_id=reference.task_id))
    spoken = sum(m["role"] == "assistant" for m in messages[place:])
    if model == "broken":  # first a call that nobody can read, then gold
        if spoken == 0:
            return _message(None, ("get_users", '{"broken": '), call_id="broken_0")
        spoken -= 1
    if model == "wrong":
        script = script.with_mistake(0)
    turn = script.turn(spoken)
    if turn.call is not None:
        name, arguments = turn.call
        return _message(None, (name, json.dumps(arguments)), call_id=f"gold_{spoken}")
    return _message(turn.text)


def _message(content: str | None, call: tuple[str, str] | None = None, call_id: str = "") -> dict[str, Any]:
    calls = None
    if call is not None:
        calls = [{"id": call_id, "type": "function", "function": {"name": call[0], "arguments": call[1]}}]
    return {"role": "assistant", "content": content, "tool_calls": calls}
