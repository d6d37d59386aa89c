"""Does the first prompt fit? What a run plays, told before its first episode.

A knowledge base in the prompt, a long policy or many tools can be longer than the context. Then every episode fails in the
same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.agents import build_agent
from tau2_slime.episode.transcript import Transcript
from tau2_slime.errors import ConfigError
from tau2_slime.policy.checkpoint import CheckpointProfile
from tau2_slime.tokens.calls.types import Tool
from tau2_slime.world import domains, retrieval
from tau2_slime.world.environment import World

Played = tuple[Tau2Config, str]
"""Settings, domain and split among them, and the id of a task."""


def longest_first_prompt(
    played: Iterable[Played], profile: CheckpointProfile, limit: int | None = None
) -> tuple[int, str]:
    """Tokens of the longest first prompt of what is played, and the ``domain/task`` that has it.

    The prompt is that of the policy, the tools, the examples and a greeting. Of
    tasks whose prompts are alike the first one is looked at:
    some milliseconds, a second where a knowledge base is in it. Call it off the event loop.

    Args:
        played: settings and task of every episode.
        profile: of the checkpoint that plays.
        limit: tokens of a trajectory, where the run sets one; the checkpoint's own limit counts as well.

    Raises:
        ConfigError: a prompt leaves no room for an answer; its tokens, the limit and the task are named.
    """
    longest, where = 0, ""
    room = min((one for one in (limit, profile.context_length) if one), default=None)
    for config, task_id in _with_prompts_of_their_own(played):
        size = _first_prompt(config, task_id, profile)
        if size > longest:
            longest, where = size, f"{config.domain}/{task_id}"
        if room is not None and size >= room:
            variant = config.environment.get("retrieval_variant") if retrieval.variants(config.domain) else None
            with_variant = f" with retrieval_variant={variant!r}" if variant else ""
            raise ConfigError(
                f"{config.domain}/{task_id}{with_variant}: the first prompt alone has {size:,} tokens, the context "
                f"{room:,}: no answer fits; {'choose another variant, or ' if variant else ''}give the model more context"
            )
    return longest, where


def _with_prompts_of_their_own(played: Iterable[Played]) -> Iterator[Played]:
    seen: set[tuple[str, ...]] = set()
    for config, task_id in played:
        environment = config.environment
        # With golden_retrieval the prompt holds the task's own documents.
        own = task_id if environment.get("retrieval_variant") == "golden_retrieval" else ""
        agent = (config.agent_type, str(config.agent_path), config.agent_strategy, str(config.few_shot))
        key = (config.domain, repr(environment), own, *agent)
        if key not in seen:
            seen.add(key)
            yield config, task_id


def _first_prompt(config: Tau2Config, task_id: str, profile: CheckpointProfile) -> int:
    task = domains.find_task(config.domain, config.task_split, task_id=task_id)
    solo = config.agent_type == "solo"
    try:
        world = World(config.domain, config.task_split, task, solo=solo, env_kwargs=config.environment)
        agent = build_agent(world, _Silent(), config)
    except ValueError:  # τ² does not let this agent play the task, which the episode says
        return 0
    chat = agent.opening(spell=profile.parser.format)
    if not solo:
        chat.append({"role": "user", "content": "Hello"})
    return len(profile.delta.first_prompt(chat, agent.transcript.offered))


class _Silent:
    """A `Speaker` that is never asked."""

    def transcript(self, tools: list[Tool]) -> Transcript:
        return Transcript(tools)
