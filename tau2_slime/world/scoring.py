"""The official reward: τ²'s own `evaluate_simulation` over what the episode did."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING

from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Termination
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.judge import Verdict, given

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, RewardInfo, Task, TerminationReason


def needs_judge(task: Task) -> bool:
    """True if τ² would ask an LLM judge to grade ``task`` (NL assertions in its reward basis)."""
    criteria = task.evaluation_criteria
    if criteria is None:
        return False
    return tau2_compat.load().RewardType.NL_ASSERTION in criteria.reward_basis and bool(criteria.nl_assertions)


def check_scorable(task: Task, *, allow_judge: bool) -> None:
    """Refuse, before the episode runs, a task whose reward needs a judge that was not asked for.

    Raises:
        ConfigError: naming the task and the setting.
    """
    if not allow_judge and needs_judge(task):
        raise ConfigError(
            f"task {task.id} is graded by an LLM judge (NL_ASSERTION is in its reward basis): set allow_llm_judge: true "
            "and give the judge_model its key, or leave the task out"
        )


def score(
    world: World,
    messages: list[Message],
    rejected: dict[int, list[int]],
    termination: Termination,
    *,
    started: str,
    duration: float,
    allow_judge: bool = False,
    verdicts: Sequence[Verdict] | None = None,
) -> RewardInfo:
    """τ²'s reward for a finished conversation. CPU-bound: a millisecond if `is_quick`, else up to 2 s.

    ``rejected``: message index -> positions of the calls that never reached the environment. The evaluator does not see
    them, because replaying them would give another answer; it does see the text beside them. ``started`` is a time stamp
    as τ² writes it, ``duration`` is in seconds. ``verdicts``: of `judge.ask`; without them τ² asks its own judge.

    Raises what τ²'s evaluator raises.
    """
    t = tau2_compat.load()
    judge = allow_judge and needs_judge(world.task)
    run = t.SimulationRun(
        id=world.task.id,
        task_id=world.task.id,
        start_time=started,
        end_time=t.get_now(),
        duration=duration,
        termination_reason=tau2_reason(termination),
        messages=replayable(messages, rejected),
    )
    arguments = tau2_compat.evaluation_arguments(
        run, world.task, domain=world.domain, solo=world.solo, env_kwargs=world.env_kwargs, judge=judge
    )
    with nullcontext() if verdicts is None else given(verdicts):
        if world.fast is None:
            return tau2_compat.evaluate(world.environment, arguments)
        return world.fast.evaluate(world, arguments, judge=judge)


def raising_assertion(world: World) -> str | None:
    """The first of the task's environment assertions that raises in the state that the agent left, with its error.

    One that names no function, or does not fit it, is the task's own mistake and does not count.
    """
    criteria, environment = world.task.evaluation_criteria, world.environment
    for assertion in (criteria.env_assertions if criteria is not None else None) or []:
        toolkit = environment.user_tools if assertion.env_type == "user" else environment.tools
        try:
            inspect.signature(getattr(toolkit, assertion.func_name)).bind(**assertion.arguments)
        except (AttributeError, TypeError):
            continue
        try:
            environment.run_env_function_call(assertion)
        except Exception as error:  # τ²'s own function, given whatever the agent has made of the data
            return f"{assertion.func_name}: {type(error).__name__}: {error}"
    return None


def is_quick(world: World, *, allow_judge: bool) -> bool:
    """True if `score` takes about a millisecond, as it nearly always does after a task's first episode."""
    if world.fast is None or (allow_judge and needs_judge(world.task)):
        return False
    return world.fast.knows_gold(world)


def replayable(messages: list[Message], rejected: dict[int, list[int]]) -> list[Message]:
    """``messages`` without the rejected calls and their results; a message left with neither text nor call is dropped."""
    t = tau2_compat.load()
    kept: list[Message] = []
    numbered = enumerate(messages)
    for index, message in numbered:
        positions = rejected.get(index)
        if not positions:
            kept.append(message)
            continue
        results = [result for _, result in islice(numbered, len(message.tool_calls))]
        calls = [call for i, call in enumerate(message.tool_calls) if i not in positions]
        if calls or message.has_text_content():
            kept.append(message.model_copy(update={"tool_calls": calls or None}))
        kept.extend(r for i, r in enumerate(results) if i not in positions and isinstance(r, t.ToolMessage))
    return kept


def tau2_reason(termination: Termination) -> TerminationReason:
    """τ²'s member for ``termination``; limits that τ² does not know are its ``max_steps`` (reward 0, no breakdown)."""
    reasons = tau2_compat.load().TerminationReason
    try:
        return reasons(termination.value)
    except ValueError:
        return reasons.MAX_STEPS
