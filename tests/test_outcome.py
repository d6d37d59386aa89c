"""Who is to blame, and what of an episode may reach the gradient."""

from __future__ import annotations

import json

import pytest

from tau2_slime.episode.result import InteractionResult
from tau2_slime.outcome import SUCCESS, Blame, Status, Termination, blame_for


def result(termination: Termination, reward: float | None, **counts: int) -> InteractionResult:
    return InteractionResult(
        domain="mock",
        task_split="base",
        task_id="t",
        agent_type="llm",
        user_model="m",
        termination=termination,
        blame=blame_for(termination, **counts),
        reward=reward,
    )


@pytest.mark.parametrize(
    ("agent_errors", "user_errors", "blame"), [(3, 1, Blame.AGENT), (1, 3, Blame.USER), (2, 2, Blame.AGENT)]
)
def test_too_many_errors_are_blamed_on_the_side_that_made_more(
    agent_errors: int, user_errors: int, blame: Blame
) -> None:
    found = blame_for(Termination.TOO_MANY_ERRORS, agent_errors=agent_errors, user_errors=user_errors)
    assert found is blame


def test_a_user_stop_is_the_agents_end_only_if_the_agent_had_a_turn() -> None:
    assert blame_for(Termination.USER_STOP, agent_turns=0) is Blame.USER
    assert blame_for(Termination.USER_STOP, agent_turns=1) is Blame.AGENT


@pytest.mark.parametrize("termination", list(Termination))
def test_every_end_has_a_blame_and_only_the_agents_doing_is_trainable(termination: Termination) -> None:
    ended = result(termination, 0.0)
    assert isinstance(ended.blame, Blame)
    assert ended.trainable == (ended.blame in (Blame.AGENT, Blame.LIMIT))
    assert (ended.status is Status.ABORTED) == (termination is Termination.ABORTED)


@pytest.mark.parametrize(
    "termination", [Termination.USER_ERROR, Termination.INFRASTRUCTURE_ERROR, Termination.CONFIG_ERROR]
)
def test_a_failure_of_others_is_never_a_zero(termination: Termination) -> None:
    assert result(termination, None).status is Status.FAILED
    assert not result(termination, None).trainable


def test_what_could_not_be_scored_is_not_trainable() -> None:
    assert result(Termination.USER_STOP, 1.0).status is Status.COMPLETED
    assert result(Termination.USER_STOP, None).status is Status.FAILED


@pytest.mark.parametrize(
    "termination",
    [Termination.MAX_STEPS, Termination.MAX_TURNS, Termination.RESPONSE_LENGTH, Termination.CONTEXT_LENGTH],
)
def test_limits_truncate(termination: Termination) -> None:
    assert result(termination, 0.0).status is Status.TRUNCATED


@pytest.mark.parametrize(
    ("reward", "success"), [(1.0, True), (1 - 1e-7, True), (1 - 1e-5, False), (0.99, False), (0.5, False), (0.0, False)]
)
def test_a_success_is_tau2s_full_reward(reward: float, success: bool) -> None:
    """τ²'s own `is_successful`: 1, give or take a millionth."""
    from tau2.metrics.agent_metrics import is_successful

    assert (reward >= SUCCESS) is success is bool(is_successful(reward))


def test_status_values_are_those_of_slime() -> None:
    assert {status.value for status in Status} == {"completed", "truncated", "aborted", "failed"}


def test_a_result_is_plain_json() -> None:
    from tau2_slime.world import tau2_compat

    t = tau2_compat.load()
    ended = result(Termination.USER_STOP, 1.0)
    ended.messages = [t.UserMessage(role="user", content="héllo", raw_data={"secret": 1})]
    data = json.loads(ended.to_json())
    assert data["termination"] == "user_stop" and data["blame"] == "agent" and data["status"] == "completed"
    assert data["messages"][0]["content"] == "héllo" and "raw_data" not in data["messages"][0]
    assert "ledger" not in data


def test_too_many_errors_without_counts_are_the_agents_and_one_of_the_users_is_more_than_none() -> None:
    assert blame_for(Termination.TOO_MANY_ERRORS) is Blame.AGENT
    assert blame_for(Termination.TOO_MANY_ERRORS, user_errors=1) is Blame.USER
