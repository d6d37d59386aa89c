"""What `tau2-slime play` was asked for, and who sits opposite."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.setup import build_episode, choose_task
from tau2_slime.episode.users import check_user
from tau2_slime.local.gold import CaseReference
from tau2_slime.local.person import Person
from tau2_slime.observe.rollout_folder import Job
from tau2_slime.play.agent import PersonSpeaker
from tau2_slime.play.folder import PlayFolder
from tau2_slime.play.session import Build, Session
from tau2_slime.runtime.address import address, answers
from tau2_slime.runtime.loops import offload
from tau2_slime.slime_adapter.sample import StandaloneSample

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.episode.transcript import Speaker
    from tau2_slime.tokens.template.chat_template import ChatTemplate

Seat = Literal["user", "agent"]


@dataclass(frozen=True)
class PlayRequest:
    """Who plays what against whom."""

    seat: Seat
    """The person's."""
    config: Tau2Config
    """With the domain and split that are played; ``user_strategy: human`` if the person is the user."""
    task_id: str
    output_dir: Path
    router: str | None = None
    hf_checkpoint: str | None = None
    trust_remote_code: bool = False
    api: Callable[[], Speaker] | None = None
    """The agent behind an API, anew for each conversation."""
    api_name: str = ""
    sampling_params: dict[str, Any] = field(default_factory=dict)
    """Of a router or the embedded policy."""
    max_context_len: int | None = None


async def play(request: PlayRequest, person: Person) -> InteractionResult:
    """Play the episode with ``person`` and keep it in the request's folder, which the caller holds.

    Raises:
        ConfigError: a setting, the folder or an endpoint cannot be used.
        OSError: the episode cannot be written.
    """
    config = request.config
    await choose_task(config, task_id=request.task_id)
    if config.agent_type != "solo":
        await offload(check_user, config, config.user_model)
    job = Job(config.domain, config.task_split, request.task_id, group=0, index=0)
    async with _opposite(request, person) as (build, policy, template):
        sampling = request.sampling_params if request.seat == "user" else {}
        folder = PlayFolder(request.output_dir, job, policy, config.model_dump(mode="json"), sampling, template)
        folder.begin()
        return await Session(build, person, folder).play()


@contextlib.asynccontextmanager
async def _opposite(
    request: PlayRequest, person: Person
) -> AsyncIterator[tuple[Build, dict[str, Any], ChatTemplate | None]]:
    """How to build an episode, who the agent is, and the template of its tokens, where there are tokens."""
    config = request.config
    if request.seat == "agent" or request.api is not None:

        async def with_messages() -> EpisodeSetup:
            task = await choose_task(config, task_id=request.task_id)
            solo = config.agent_type == "solo"
            speaker = (
                request.api() if request.api is not None else PersonSpeaker(person, config.domain, task, solo=solo)
            )
            return await build_episode(config, task, speaker, config.user_model)

        agent = {"kind": "litellm", "name": request.api_name} if request.api is not None else {"kind": "person"}
        yield with_messages, agent, None
        return
    async with contextlib.AsyncExitStack() as stack:
        url, checkpoint, kind = request.router, request.hf_checkpoint, "router"
        if url is None:
            from tau2_slime.local.policy_server import PolicyServer
            from tau2_slime.local.tokenizer import local_checkpoint

            checkpoint, kind = checkpoint or str(await offload(local_checkpoint)), "embedded"
            server = await stack.enter_async_context(
                PolicyServer(checkpoint, played=[(config.domain, config.task_split)])
            )
            url = server.url
            reference = CaseReference(config.domain, config.task_split, request.task_id)
            hint = f"The embedded policy does the task's gold actions once you say: {reference.sentence()}"
            person.terminal.show(hint, "dim")
        assert checkpoint is not None
        build, template = await _with_tokens(request, url, checkpoint)
        yield build, {"kind": kind, "hf_checkpoint": request.hf_checkpoint}, template


async def _with_tokens(request: PlayRequest, url: str, checkpoint: str) -> tuple[Build, ChatTemplate]:
    """An agent that is sampled as in training: through slime's own assembly."""
    from tau2_slime.policy.checkpoint import profile_for
    from tau2_slime.slime_adapter.request import setup_from_slime
    from tau2_slime.tokens.replay import NOTHING

    config, (host, port) = request.config, address(url)
    profile = await profile_for(checkpoint, config, trust_remote_code=request.trust_remote_code)
    await answers(host, port)
    args = SimpleNamespace(
        hf_checkpoint=checkpoint,
        sglang_router_ip=host,
        sglang_router_port=port,
        rollout_max_context_len=request.max_context_len,
    )

    async def build() -> EpisodeSetup:
        sample = StandaloneSample(index=0, session_id="play-0", metadata={"task_id": request.task_id})
        return await setup_from_slime(
            args, sample, request.sampling_params, config, profile, replay=NOTHING, evaluation=True
        )

    return build, profile.delta.template
