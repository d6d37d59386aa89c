"""slime's door: the real `generate`, with slime's arguments, against a server that speaks sglang's protocol."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.runtime.address import address
from tau2_slime.slime_adapter.sample import TRAJECTORY, StandaloneSample
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, record_of
from tests.backends.doors.stage import Stage, Voice

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 4096}
CONTEXT = 10**6


class ScriptedServer(PolicyServer):
    """The embedded policy's server, with the stage's lines instead of gold play."""

    def __init__(self, stage: Stage, checkpoint: str) -> None:
        super().__init__(checkpoint, context_length=CONTEXT)
        self._stage = stage

    def _load(self) -> Any:
        return ScriptedPolicy(self._stage, str(self.checkpoint))


class ScriptedPolicy:
    """What `Sampler` asks, answered by a script: the routing key is the case."""

    def __init__(self, stage: Stage, checkpoint: str) -> None:
        from transformers import AutoTokenizer

        from tau2_slime.tokens.calls.registry import detect_parser, get_parser
        from tau2_slime.tokens.template.chat_delta import ChatDelta

        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        delta = ChatDelta.calibrate(tokenizer)
        self.template, self._thinking = delta.template, delta.report.reasoning_preopened
        parser = get_parser(detect_parser(delta.template.template_source, delta.template.control_tokens))
        self._stage, self._voice = stage, Voice(tokenizer, parser)
        self._stop = min(delta.stop_ids & set(delta.template.closers.values()) or delta.stop_ids)

    def read(self, input_ids: list[int]) -> list[int]:
        return input_ids

    def knows(self, place: Any) -> bool:
        return True

    def continuation(self, place: Any, *, routing_key: str = "") -> list[int]:
        key = routing_key.split("/")[0]
        number, turn = self._stage.policy(key)
        return [*self._voice.ids(key, number, turn, thinking=self._thinking), self._stop]


class Door:
    def __init__(self, stage: Stage, chat: str, options: Any) -> None:
        self._stage, self._chat, self._options = stage, chat, options

    async def __aenter__(self) -> Door:
        self._server = ScriptedServer(self._stage, self._options.checkpoint)
        await self._server.start()
        self._host, self._port = address(self._server.url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def play(self, case: Case) -> Record:
        from tau2_slime.generate_with_tau2 import generate

        args = SimpleNamespace(
            hf_checkpoint=self._options.checkpoint,
            sglang_router_ip=self._host,
            sglang_router_port=self._port,
            sglang_context_length=CONTEXT,
            save_debug_rollout_data="wanted",
            tau2={},
        )
        metadata = {"task_id": case.task_id, **self._stage.settings(case, self._chat)}
        sample = StandaloneSample(index=0, prompt=case.task_id, metadata=metadata, session_id=case.key)
        assert await generate(args, sample, dict(SAMPLING)) is sample
        told = sample.metadata["tau2"]
        result = {**told, **sample.metadata[TRAJECTORY], "reward": told["official_reward"]}
        record = record_of(case.key, result, paid=None if sample.remove_sample else sample.reward)
        if self._options.tokens:
            start = len(sample.tokens) - sample.response_length
            record["tokens"] = sample.tokens
            record["loss_mask"] = [0] * start + list(sample.loss_mask or [])
            record["log_probs"] = [0.0] * start + list(sample.rollout_log_probs or [])
        return record
