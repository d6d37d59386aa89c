"""The v1 `Harness`: one `TurnEpisode` in this process, whose policy is verifiers' interception endpoint.

What the model said is sent back as it came (text, reasoning, call ids), so every turn extends the one branch of the trace,
and with verifiers' training client the next prompt extends the sampled tokens. An episode that failed for no fault of the
model fails the rollout (``trace.ok`` is False, with an error that says why): it is never taken for a reward of 0.
"""

from __future__ import annotations

from typing import Any

import verifiers.v1 as vf

from tau2_slime.backends.chat_wire import to_turn, to_wire, under_ids_said
from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.backends.verifiers.settings import RECORD, figures, record_of
from tau2_slime.backends.verifiers.v1.endpoint import Endpoint
from tau2_slime.backends.verifiers.v1.taskset import OWN_INSTRUCTIONS, Tau2TaskData
from tau2_slime.errors import ConfigError, ContextOverflow, EngineError, Tau2SlimeError
from tau2_slime.outcome import Status, Termination


class EpisodeFailed(Tau2SlimeError):
    """The episode has no reward, for no fault of the model."""


class Tau2HarnessConfig(vf.HarnessConfig):
    """Nothing to set: what an episode is told stands in the taskset's settings."""

    id: vf.ID = "tau2-bench"


class Tau2Harness(vf.Harness[Tau2HarnessConfig]):
    """Plays τ²: tools, user simulator (with its own tools), limits and reward are the core's."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Tau2TaskData,
    ) -> vf.ProgramResult:
        if not isinstance(data, Tau2TaskData):
            raise TypeError(f"{type(self).__name__} plays τ²'s tasks only, not {type(data).__name__}")
        if data.system_prompt is not None:
            raise ConfigError(f"a system prompt cannot be given: {OWN_INSTRUCTIONS}")
        config = data.config()
        episode = await TurnEpisode.create(config, task_id=data.task_id, user=trace.state.user)
        trace.state.episode = episode
        try:
            async with Endpoint(
                endpoint, secret, ctx.model, timeout=config.request_timeout, retries=config.request_retries
            ) as model:
                await _play(episode, model, trace)
        finally:
            await episode.close()
        result = episode.result
        assert result is not None
        record = trace.info[RECORD] = record_of(result)
        trace.record_metrics(figures(record["reward_info"], record["stats"], record["blame"]))
        if result.reward is None or result.status in (Status.FAILED, Status.ABORTED):
            raise EpisodeFailed(f"{result.termination} ({result.blame}): {result.detail}")
        trace.stop(str(result.termination))
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


async def _play(episode: TurnEpisode, model: Endpoint, trace: Any) -> None:
    """Until the episode is over: the model's turns, each with the whole conversation as it was said."""
    said: list[dict[str, Any]] = []
    ids: list[str] = []
    ask = await episode.begin()
    try:
        while ask is not None:
            said += [to_wire(message) for message in under_ids_said(ask.new, ids)]
            message, finish = await model.complete(said, ask.tools)
            if finish == "length":
                await episode.stop(Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens")
                break
            said.append(message)
            ids = [call["id"] for call in message.get("tool_calls") or []]
            ask = await episode.reply(to_turn(message, ask.tools))
    except ContextOverflow as error:
        await episode.stop(Termination.CONTEXT_LENGTH, str(error))
    except EngineError as error:
        if trace.stop_condition is not None:  # verifiers' own limits and stops refuse the next turn
            await episode.stop(Termination.MAX_TURNS, f"stopped by {trace.stop_condition}")
        else:
            await episode.stop(Termination.INFRASTRUCTURE_ERROR, str(error))
