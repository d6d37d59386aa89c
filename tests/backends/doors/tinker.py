"""Tinker's door: the cookbook's own rollout over `Tau2Env`, with a `TokenCompleter` that samples the stage's lines."""

from __future__ import annotations

from typing import Any

from tau2_slime.backends.tinker import EpisodeFailed, Tau2EnvGroupBuilder
from tau2_slime.backends.tinker.rendering import turn_renderer
from tau2_slime.config.settings import Tau2Config
from tau2_slime.local.spelling import log_prob
from tau2_slime.tokens.calls.registry import detect_parser, get_parser
from tests.backends.doors.cases import Case
from tests.backends.doors.records import Record, record_of
from tests.backends.doors.stage import Stage, Voice

MODEL = "scripted/model"


class Door:
    def __init__(self, stage: Stage, chat: str, options: Any) -> None:
        self._stage, self._chat, self._options = stage, chat, options

    async def __aenter__(self) -> Door:
        from tinker_cookbook import tokenizer_utils
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._options.checkpoint)
        tokenizer_utils.register_tokenizer(MODEL, lambda: tokenizer)
        template = tokenizer.chat_template
        self._voice = Voice(tokenizer, get_parser(detect_parser(template, tokenizer.get_added_vocab())))
        self._renderer = turn_renderer(MODEL, self._options.renderer)
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def completer(self, case: Case) -> Any:
        from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs

        stage, voice, renderer = self._stage, self._voice, self._renderer

        class Scripted(TokenCompleter):
            async def __call__(self, model_input: Any, stop: Any, *, max_tokens: int | None = None) -> Any:
                prompt = model_input.to_ints()
                number, turn = stage.policy(case.key)
                thinking = renderer.decode(prompt[-8:]).rstrip().endswith("<think>")
                tokens = [*voice.ids(case.key, number, turn, thinking=thinking), stop[0]]
                return TokensWithLogprobs(tokens, [log_prob(len(prompt) + i, t) for i, t in enumerate(tokens)], "stop")

        return Scripted()

    async def play(self, case: Case) -> Record:
        from tinker_cookbook.rl.rollouts import do_single_rollout

        config = Tau2Config(**self._stage.settings(case, self._chat))
        builder = Tau2EnvGroupBuilder(config, case.task_id, 1, MODEL, self._options.renderer)
        (env,) = await builder.make_envs()
        trajectory, paid = None, None
        try:
            trajectory = await do_single_rollout(self.completer(case), env)
            paid = sum(t.reward for t in trajectory.transitions)
        except EpisodeFailed:
            pass
        record = record_of(case.key, env.episode.result.to_dict(tokens=False), paid=paid)
        if self._options.tokens and trajectory is not None:
            record.update(datums_of(trajectory))
        return record


def datums_of(trajectory: Any) -> dict[str, Any]:
    """What the cookbook would train on: tokens, mask and log-probs of its only datum, and how many there are."""
    import torch
    from tinker_cookbook.rl.data_processing import assemble_training_data
    from tinker_cookbook.rl.types import TrajectoryGroup

    group = TrajectoryGroup([trajectory], [0.0], [{}])
    data, _ = assemble_training_data([group], [torch.tensor([1.0])])
    tokens, mask, log_probs = [], [], []
    for datum in data:
        given = {name: datum.loss_fn_inputs[name].to_torch().tolist() for name in ("target_tokens", "mask", "logprobs")}
        # A datum holds what comes after each of its tokens: the first token has no place among the targets.
        tokens.append([datum.model_input.to_ints()[0], *given["target_tokens"]])
        mask.append([0, *(int(value) for value in given["mask"])])
        log_probs.append([0.0, *given["logprobs"]])
    if not data:  # over before the policy had a turn
        return {"datums": 0}
    return {"datums": len(data), "tokens": tokens[0], "loss_mask": mask[0], "log_probs": log_probs[0]}
