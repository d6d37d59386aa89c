"""From a configuration to one episode: the task, a fresh world, the agent, the user, the judge. Knows nothing of slime."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.agents import build_agent
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.examples import examples_of
from tau2_slime.episode.play import EpisodeSetup
from tau2_slime.episode.users import PlayedBy, Routers, make_user, user_role, user_spec
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.loops import offload, take_turn
from tau2_slime.world import domains, retrieval, scoring
from tau2_slime.world.environment import World, new_world
from tau2_slime.world.judge import JudgeSpec
from tau2_slime.world.users import User

if TYPE_CHECKING:
    from tau2_slime.episode.transcript import Speaker
    from tau2_slime.world.types import Task

logger = logging.getLogger(__name__)


async def choose_task(config: Tau2Config, *, task_id: str | None = None, index: int | None = None) -> Task:
    """The task of ``config``'s domain and split, by id or position from 0, if τ² can score it.

    Raises:
        ConfigError: no such task exists, or it needs a judge that was not asked for.
    """
    await take_turn()  # hundreds of episodes may begin at once, and their worlds are built next
    find = functools.partial(domains.find_task, config.domain, config.task_split, task_id=task_id, index=index)
    task = find() if (config.domain, config.task_split) in domains.loaded else await offload(find)
    scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
    return task


def playable(config: Tau2Config, split: str) -> list[Task]:
    """The split's tasks. Those that only an LLM judge can grade are left out, with a warning, unless that is allowed.

    Raises:
        ConfigError: the domain has no such split, needs a retrieval variant, or ``few_shot`` cannot be used.
    """
    retrieval.require(config.domain, config.environment)
    tasks = domains.tasks(config.domain, split)
    kept = [task for task in tasks if config.allow_llm_judge or not scoring.needs_judge(task)]
    if len(kept) < len(tasks):
        logger.warning(
            "%s/%s: %d tasks are graded by an LLM judge and left out (allow_llm_judge=True keeps them)",
            config.domain,
            split,
            len(tasks) - len(kept),
        )
    if kept:  # what is wrong with the examples is told before anything is played
        examples_of(config, config.domain, split, str(kept[0].id))
    return kept


async def build_episode(
    config: Tau2Config,
    task: Task,
    policy: Speaker,
    user_model: str,
    *,
    user: Callable[[World], User] | None = None,
    routers: Routers | None = None,
    training: bool = False,
    attempt: int = 0,
) -> EpisodeSetup:
    """A fresh world for ``task``, and who plays in it.

    Args:
        user_model: name of the simulator that plays the user.
        user: builds a user of one's own from the world; it replaces the simulator.
        routers: what slime serves beside the policy; None outside a training job.
        training: the settings that are for training only count (the quality gate, reward parts, failover, budget).
        attempt: which of several attempts at the task this is, from 0; each has a seed of its own (`user_args`).

    Raises:
        ConfigError: this kind of agent cannot play the task, or the simulator's key is not set.
    """
    solo = config.agent_type == "solo"
    retrieval.require(config.domain, config.environment)
    try:
        world = await new_world(config.domain, config.task_split, task, solo=solo, env_kwargs=config.environment)
        agent = build_agent(world, policy, config)
    except ConfigError:
        raise
    except ValueError as error:  # τ²'s own refusals: no solo mode, no ticket, no gold actions
        raise ConfigError(f"agent_type={config.agent_type!r} in {config.domain}: {error}") from error
    limits = Limits(max_steps=config.max_steps, max_errors=config.max_errors, max_turns=config.max_turns)
    setup = EpisodeSetup(agent, None, limits, metrics=config.metrics)
    if config.allow_llm_judge and scoring.needs_judge(task):
        setup.judge = judge_of(config, training=training)
    if training and config.reward_shaping is not None:
        setup.reward_parts = tuple(config.reward_shaping.parts)
    if not solo:
        role = user_role(config, user_model)
        setup.user_model, setup.user_strategy = role.label, role.strategy
        setup.examine_user = role.played_by in (PlayedBy.MODEL, PlayedBy.OWN_CLASS)
        setup.excluded_flaws = config.user_quality_gate if training else ()
        if user is not None:
            setup.user = user(world)
            return setup
        spec = user_spec(config, user_model, routers, attempt=attempt)
        setup.user = make_user(config, spec, world, routers, evaluation=not training, attempt=attempt)
        if setup.examine_user:
            seed = spec.args.get("seed")
            setup.seeds = {"user": seed} if isinstance(seed, int) else {}
    return setup


def judge_of(config: Tau2Config, *, training: bool) -> JudgeSpec:
    """Who judges the tasks that need an LLM judge.

    Raises:
        ConfigError: the judge's key is not set.
    """
    spec = JudgeSpec(
        config.judge_model or "",
        base_url=config.judge_base_url,
        api_key_var=config.judge_api_key_var,
        budget=config.user_budget if training else None,
    ).resolved()
    spec.connection()  # what is missing is told before anything is played
    return spec
