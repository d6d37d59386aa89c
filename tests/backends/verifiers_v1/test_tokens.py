"""Training through verifiers: its renderer client against a stand-in for vLLM's generate endpoint, tokens and all."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import tau2_bench
import verifiers.v1 as vf
from renderers.configs import Qwen3RendererConfig

from tau2_slime.local.gold import GoldScript
from tau2_slime.local.tokenizer import local_checkpoint


@dataclass
class Engine:
    """Plays one task's gold script, turn by turn of each session, in tokens that no tokenizer would choose."""

    tokenizer: Any
    script: GoldScript
    url: str = ""
    asked: dict[str, list[list[int]]] = field(default_factory=lambda: defaultdict(list))
    sampled: dict[str, list[list[int]]] = field(default_factory=lambda: defaultdict(list))

    def answer(self, session: str, token_ids: list[int]) -> dict[str, Any]:
        turn = self.script.turn(len(self.asked[session]))
        text = turn.text or ""
        if turn.call is not None:
            call = json.dumps({"name": turn.call[0], "arguments": turn.call[1]})
            text = f"<tool_call>\n{call}\n</tool_call>"
        ids: list[int] = []
        for piece in (
            text.replace("<tool_call>", "\0<tool_call>\0").replace("</tool_call>", "\0</tool_call>\0").split("\0")
        ):
            for part in [piece] if piece.endswith("tool_call>") else piece:
                ids += self.tokenizer.encode(part, add_special_tokens=False)
        ids.append(self.tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.asked[session].append(token_ids)
        self.sampled[session].append(ids)
        scores = [{"token": f"token_id:{i}", "logprob": -0.5, "bytes": None, "top_logprobs": []} for i in ids]
        choice = {"index": 0, "token_ids": ids, "logprobs": {"content": scores}, "finish_reason": "stop"}
        return {"request_id": f"{session}-{len(self.asked[session])}", "choices": [choice]}


@pytest.fixture
def engine() -> Iterator[Engine]:
    from transformers import AutoTokenizer

    from tau2_slime.world import domains

    played = Engine(
        AutoTokenizer.from_pretrained(str(local_checkpoint())),
        GoldScript.from_task(domains.tasks("retail", "base")[0]),
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/inference/v1/generate"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = json.dumps(played.answer(self.headers["X-Session-ID"], body["token_ids"])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    played.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield played
    server.shutdown()
    server.server_close()
    thread.join()


async def test_what_was_sampled_is_what_is_trained(engine: Engine) -> None:
    """Every call's prompt is the trace's tokens up to there; the one branch's trained tokens are the sampled ones."""
    client = vf.TrainClientConfig(
        base_url=engine.url,
        api_key_var="NO_KEY",
        renderer=Qwen3RendererConfig(enable_thinking=False),
        renderer_model_name=str(local_checkpoint()),
    )
    env = tau2_bench.load_environment(domain="retail", task_split="base", user_llm="scripted", num_eval_examples=1)
    results = await env.evaluate(client, "policy", rollouts_per_example=3)
    assert (results["score"], results["completed"]) == (1.0, 3)
    for trace in results["outputs"]:
        asked, sampled = engine.asked[trace.id], engine.sampled[trace.id]
        assert len(sampled) == trace.num_turns > 2
        for before, said, now in zip(asked, sampled, asked[1:], strict=False):
            assert now[: len(before) + len(said)] == before + said
        (branch,) = trace.branches
        assert branch.token_ids == asked[-1] + sampled[-1]
        trained = [token for token, mask in zip(branch.token_ids, branch.sampled_mask, strict=True) if mask]
        assert trained == [token for turn in sampled for token in turn]
        assert {p for p, mask in zip(branch.logprobs, branch.sampled_mask, strict=True) if mask} == {-0.5}
