"""The official reward: τ²'s own `evaluate_simulation` over what the episode did."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from tau2_slime.errors import ConfigError, first_time
from tau2_slime.outcome import Termination
from tau2_slime.world import tau2_compat
from tau2_slime.world.domains import World
from tau2_slime.world.fast.audit import auditor
from tau2_slime.world.fast.evaluator_stubs import evaluate_with, knows_gold
from tau2_slime.world.fast.replays import objection
from tau2_slime.world.fast.shared_db import NotShared

logger = logging.getLogger(__name__)


def needs_judge(task: Any) -> bool:
    """True if τ² would ask an LLM judge to grade ``task`` (NL assertions in its reward basis)."""
    criteria = task.evaluation_criteria
    if criteria is None:
        return False
    return tau2_compat.load().RewardType.NL_ASSERTION in criteria.reward_basis and bool(criteria.nl_assertions)


def check_scorable(task: Any, *, allow_judge: bool) -> None:
    """Refuse, before the episode runs, a task whose reward needs a judge that was not asked for.

    Raises:
        ConfigError: naming the task and the setting.
    """
    if needs_judge(task) and not allow_judge:
        raise ConfigError(
            f"task {task.id} is graded by an LLM judge (NL_ASSERTION is in its reward basis): set allow_llm_judge: true "
            "and give τ²'s judge model its key, or leave the task out"
        )


def score(
    world: World,
    messages: list[Any],
    rejected: dict[int, list[int]],
    termination: Termination,
    *,
    started: str,
    duration: float,
    allow_judge: bool = False,
) -> Any:
    """τ²'s `RewardInfo` for a finished conversation. CPU-bound: a millisecond on the fast paths, else up to 2 s.

    Calls that never reached the environment (``rejected``: message index -> positions) are left out of what the
    evaluator replays, because replaying them would give another answer; the text beside them stays.
    """
    t = tau2_compat.load()
    judge = allow_judge and needs_judge(world.task)
    arguments = _arguments(world, messages, rejected, termination, started, duration, judge)
    run = arguments["simulation"]
    plan = world.blueprint
    if plan.way == "stock" or run.termination_reason not in (
        t.TerminationReason.AGENT_STOP,
        t.TerminationReason.USER_STOP,
    ):
        return t.evaluate_simulation(**arguments)
    why = objection(run.messages, world.executed, solo=world.solo)
    if why is None:
        try:
            return evaluate_with(t.evaluate_simulation, arguments, world.built, plan, world.env_kwargs)
        except NotShared as error:
            why = str(error)
        except Exception as error:  # τ²'s own replay, below, says whether it raises as well
            if judge:  # asking again would ask the judge again
                raise
            why = f"{type(error).__name__}: {error}"
    # τ² itself raises for some episodes; where it does not, it is right, and that must not stay unknown.
    tau2_compat.restore_class_state()
    info = t.evaluate_simulation(**arguments)
    if first_time("scored by τ²'s own replay", why):
        logger.warning("task %s: %s; such episodes are scored by τ²'s own, slower replay", world.task.id, why)
    return info


def _arguments(
    world: World,
    messages: list[Any],
    rejected: dict[int, list[int]],
    termination: Termination,
    started: str,
    duration: float,
    judge: bool,
) -> dict[str, Any]:
    """What τ²'s `evaluate_simulation` is asked."""
    t = tau2_compat.load()
    run = t.SimulationRun(
        id=str(uuid.uuid4()),
        task_id=world.task.id,
        start_time=started,
        end_time=t.get_now(),
        duration=duration,
        termination_reason=tau2_reason(termination),
        messages=replayable(messages, rejected),
    )
    return tau2_compat.evaluation_arguments(
        run, world.task, domain=world.domain, solo=world.solo, env_kwargs=world.env_kwargs, judge=judge
    )


async def audit(
    info: Any, world: World, messages: list[Any], rejected: dict[int, list[int]], termination: Termination
) -> Any:
    """``info``, or what τ²'s unmodified evaluator says in another process, should that be something else.

    Rewards that a judge gave are not asked for again. A difference is logged as an error.
    """
    if needs_judge(world.task):
        return info
    arguments = _arguments(world, messages, rejected, termination, "", 0.0, False)
    official = await auditor.official(arguments)
    if official is None or official.model_dump() == info.model_dump():
        return info
    logger.error(
        "tau2_slime: task %s/%s: the reward %s is not τ²'s, which is %s; τ²'s is taken. Please report it with the "
        "trajectory. Ours: %s. τ²'s: %s",
        world.domain,
        world.task.id,
        info.reward,
        official.reward,
        info.model_dump(mode="json"),
        official.model_dump(mode="json"),
    )
    return official


def is_quick(world: World, *, allow_judge: bool) -> bool:
    """True if `score` takes about a millisecond, as it nearly always does after a task's first episode."""
    plan = world.blueprint
    if plan.way == "stock" or (allow_judge and needs_judge(world.task)):
        return False
    return knows_gold(world.task, plan, world.env_kwargs)


def replayable(messages: list[Any], rejected: dict[int, list[int]]) -> list[Any]:
    """``messages`` without the rejected calls and their results; a message left with neither text nor call is dropped."""
    if not rejected:
        return list(messages)
    t = tau2_compat.load()
    kept: list[Any] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        positions = set(rejected.get(index - 1, ()))
        if not positions:
            kept.append(message)
            continue
        results = messages[index : index + len(message.tool_calls)]
        index += len(results)
        calls = [call for i, call in enumerate(message.tool_calls) if i not in positions]
        if calls or message.has_text_content():
            kept.append(message.model_copy(update={"tool_calls": calls or None}))
        kept.extend(r for i, r in enumerate(results) if i not in positions and isinstance(r, t.ToolMessage))
    return kept


def tau2_reason(termination: Termination) -> Any:
    """τ²'s member for ``termination``; limits that τ² does not know are its ``max_steps`` (reward 0, no breakdown)."""
    reasons = tau2_compat.load().TerminationReason
    try:
        return reasons(termination.value)
    except ValueError:
        return reasons.MAX_STEPS
