"""From a configuration to the parts of one episode: the task, a fresh world, the agent, the user. Knows nothing of slime."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.agents import TrainableAgentMixin, agent_factory
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.interrupted import Saved
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.transcript import Speaker
from tau2_slime.episode.users import make_user
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Flaw
from tau2_slime.runtime.threads import offload
from tau2_slime.world import domains, scoring
from tau2_slime.world.users import User

logger = logging.getLogger(__name__)


@dataclass
class Parts:
    """Everything that one episode needs."""

    config: Tau2Config
    agent: TrainableAgentMixin
    user: User | None
    user_model: str
    limits: Limits
    gate: tuple[Flaw, ...] = ()
    """What the simulator must not have done in an episode that counts."""

    async def solve(
        self, *, aborted: Callable[[], bool] = lambda: False, saved: Saved | None = None
    ) -> InteractionResult:
        """Play the episode and score it; the contract is `TrainableAgentMixin.asolve`'s."""
        return await self.agent.asolve(
            self.user,
            self.limits,
            user_model=self.user_model,
            allow_judge=self.config.allow_llm_judge,
            aborted=aborted,
            saved=saved,
            gate=self.gate,
        )


async def choose_task(config: Tau2Config, *, task_id: str | None = None, index: int | None = None) -> Any:
    """The task of ``config``'s domain and split, by id or position, if τ² can score it.

    Raises:
        ConfigError: there is no such task, or it needs a judge that was not asked for.
    """
    find = functools.partial(domains.find_task, config.domain, config.task_split, task_id=task_id, index=index)
    task = find() if domains.is_loaded(config.domain, config.task_split) else await offload(find)
    scoring.check_scorable(task, allow_judge=config.allow_llm_judge)
    return task


def playable(config: Tau2Config, split: str) -> list[Any]:
    """The split's tasks. Those that only an LLM judge can grade are left out, with a warning, unless that is allowed.

    Raises:
        ConfigError: the domain has no such split.
    """
    tasks = domains.tasks(config.domain, split)
    kept = [task for task in tasks if config.allow_llm_judge or not scoring.needs_judge(task)]
    if len(kept) < len(tasks):
        logger.warning(
            "%s/%s: %d tasks are graded by an LLM judge and left out (allow_llm_judge=True keeps them)",
            config.domain,
            split,
            len(tasks) - len(kept),
        )
    return kept


async def cast(
    config: Tau2Config,
    task: Any,
    policy: Speaker,
    user_model: str,
    user: Callable[[domains.World], User] | None = None,
) -> Parts:
    """A fresh world for ``task``, and who plays in it. ``user``: builds a simulator of one's own.

    Raises:
        ConfigError: this kind of agent cannot play the task, or the simulator's key is not set.
    """
    solo = config.agent_type == "solo"
    try:
        world = await domains.new_world(config.domain, config.task_split, task, solo=solo, env_kwargs=config.env_kwargs)
        agent = agent_factory(config.agent_type, world, policy)
    except ConfigError:
        raise
    except ValueError as error:  # τ²'s own refusals: no solo mode, no ticket, no gold actions
        raise ConfigError(f"agent_type={config.agent_type!r} in {config.domain}: {error}") from error
    customer = None
    if not solo:
        customer = user(world) if user is not None else make_user(config, user_model, world)
    limits = Limits(max_steps=config.max_steps, max_errors=config.max_errors, max_turns=config.max_turns)
    return Parts(config, agent, customer, "" if solo else user_model, limits)
