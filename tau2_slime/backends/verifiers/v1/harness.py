"""The v1 `Harness`: one `TurnEpisode` in this process, whose policy is verifiers' interception endpoint.

The model's messages are sent back as they came (text, reasoning, call ids). So every turn extends the one branch of the
trace, and with verifiers' training client the next prompt extends the sampled tokens. An episode that failed without the
model's fault fails the rollout (``trace.ok`` is False, and an error says why), so that nobody takes it for a reward of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import verifiers.v1 as vf

from tau2_slime.backends.chat_wire import request_message, with_call_ids
from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.backends.verifiers.results import RECORD_KEY, episode_metrics, episode_record
from tau2_slime.backends.verifiers.v1.endpoint import Endpoint
from tau2_slime.backends.verifiers.v1.taskset import OWN_INSTRUCTIONS, Tau2TaskData
from tau2_slime.chat.completion import Ending, message_to_send_back
from tau2_slime.episode.transcript import PolicyStopped
from tau2_slime.errors import ConfigError, ContextOverflow, EngineError, Tau2SlimeError
from tau2_slime.outcome import Status, Termination

if TYPE_CHECKING:
    from tau2_slime.backends.turns import ChatMessage


class EpisodeFailed(Tau2SlimeError):
    """The episode has no reward, and that is not the model's fault."""


class Tau2HarnessConfig(vf.HarnessConfig):
    """Has no settings of its own: an episode takes its settings from the taskset."""

    id: vf.ID = "tau2-bench"


class Tau2Harness(vf.Harness[Tau2HarnessConfig]):
    """Plays τ². The episode has the tools, the user simulator with its own tools, the limits and the reward."""

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
        """Play one row's episode; its record goes into ``trace.info["tau2"]``, its numbers into the trace's metrics.

        Raises:
            TypeError: ``data`` is not a row of `Tau2Taskset`.
            ConfigError: the row has a system prompt, or its settings cannot be played.
            EpisodeFailed: the episode ended without a reward.
        """
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
        record = trace.info[RECORD_KEY] = episode_record(result)
        trace.record_metrics(episode_metrics(record["reward_info"], record["stats"], record["blame"]))
        if result.reward is None or result.status in (Status.FAILED, Status.ABORTED):
            raise EpisodeFailed(f"{result.termination} ({result.blame}): {result.detail}")
        trace.stop(str(result.termination))
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


_STOPS = {
    Ending.CUT: (Termination.RESPONSE_LENGTH, "the turn reached the limit of tokens"),
    Ending.FILTERED: (Termination.AGENT_ERROR, "the provider's content filter took the policy's message"),
    Ending.FAILED: (Termination.INFRASTRUCTURE_ERROR, "the model's endpoint stopped in the middle of the message"),
}
"""How an episode ends whose policy's message is not whole."""


async def _play(episode: TurnEpisode, model: Endpoint, trace: vf.Trace) -> None:
    """Play until the episode is over. The model is sent the whole conversation, its own turns as it wrote them."""
    sent: list[ChatMessage] = []
    call_ids: list[str] = []
    request = await episode.begin()
    try:
        while request is not None:
            sent += [request_message(message) for message in with_call_ids(request.new, call_ids)]
            answer = await model.complete(sent, request.tools)
            if answer.ending is not Ending.WHOLE:
                await episode.stop(*_STOPS[answer.ending])
                break
            sent.append(message_to_send_back((answer.raw or {}).get("message") or {}))
            call_ids = [call.id for call in answer.said.calls]
            request = await episode.reply(episode.understood(answer.said))
    except PolicyStopped as error:
        await episode.stop(Termination(error.termination), str(error))
    except ContextOverflow as error:
        await episode.stop(Termination.CONTEXT_LENGTH, str(error))
    except EngineError as error:
        if trace.stop_condition is not None:  # one of verifiers' own limits or stops refused the turn
            await episode.stop(Termination.MAX_TURNS, f"stopped by {trace.stop_condition}")
        else:
            await episode.stop(Termination.INFRASTRUCTURE_ERROR, str(error))
