"""Does the agent keep to the policy? Counted in the episode, shown as metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tau2_slime.episode.agents import TrainableLLMAgent
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.result import InteractionResult
from tau2_slime.observe.episodes import Episode
from tau2_slime.observe.metrics import episode_metrics
from tau2_slime.tasks.plays import LinesSpeaker
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.users import UserStats

pytestmark = pytest.mark.fast
PENDING = "#W5199551"
"""A pending order of fatima_johnson_7581's in τ²'s database."""


class Customer:
    """Says its lines, then leaves."""

    def __init__(self, *lines: str) -> None:
        self.stats, self._lines = UserStats(), [*lines, "###STOP###"]

    def start(self, history: list[Any]) -> None:
        pass

    async def reply(self, message: Any) -> Any:
        return tau2_compat.load().UserMessage(role="user", content=self._lines.pop(0), cost=0.0)


async def played(domain: str, said: str, *calls: tuple[str, dict[str, Any]]) -> InteractionResult:
    """The customer speaks, the agent makes ``calls`` one after the other and says good-bye."""
    world = World(domain, "base", domains.tasks(domain, "base")[0])

    def words(turn: int, tools: list[Any]) -> ParsedTurn:
        if turn >= len(calls):
            return ParsedTurn("It is done.", None)
        return ParsedTurn(None, None, [ParsedCall(*calls[turn], CallStatus.OK, "")])

    limits = Limits(max_steps=100, max_errors=100, max_turns=100)
    return await TrainableLLMAgent(world, LinesSpeaker(words), "llm").asolve(Customer(said), limits)


def cancel(reason: str) -> tuple[str, dict[str, Any]]:
    return "cancel_pending_order", {"order_id": PENDING, "reason": reason}


async def test_a_write_counts_against_the_policy_by_what_the_customer_has_said() -> None:
    kept = await played("retail", "Cancel it, I no longer need it.", cancel("no longer needed"))
    assert kept.stats.policy == {"writes": 1}
    broke = await played("retail", "Cancel it, I ordered it by mistake.", cancel("no longer needed"))
    assert broke.stats.policy == {"writes": 1, "broken": 1, "R4": 1}
    assert (kept.telemetry["policy/compliance"], broke.telemetry["policy/compliance"]) == (1.0, 0.0)


async def test_what_the_tool_refuses_and_what_only_reads_is_not_counted() -> None:
    read = ("get_order_details", {"order_id": PENDING})
    refused = ("cancel_pending_order", {"order_id": "#W0000000", "reason": "no longer needed"})
    assert (await played("retail", "Cancel it.", read, refused)).stats.policy == {}
    assert "policy/compliance" not in (await played("retail", "Cancel it.", read)).telemetry


async def test_the_state_is_the_one_that_the_call_meets() -> None:
    twice = await played(
        "retail", "I no longer need it.", ("transfer_to_human_agents", {"summary": "s"}), cancel("no longer needed")
    )
    assert twice.stats.policy == {"writes": 1, "broken": 1, "R17": 1}


def test_each_rule_is_counted_an_episode() -> None:
    def episode(policy: dict[str, int], *, excluded: bool = False) -> Episode:
        fields: dict[str, Any] = {
            **dict.fromkeys(("task_split", "agent_type", "user_model", "termination", "blame"), ""),
            **{"domain": "retail", "task_id": "1", "excluded": excluded, "reward": 1.0, "trained_reward": 1.0},
            **{"prompt_tokens": 1, "sampled_tokens": 1, "context_tokens": 1, "weight_versions": ()},
            **{"non_generation_time": 0.0, "restarted": False, "stats": {"policy": policy}},
        }
        return Episode(**fields)

    found = episode_metrics(
        [
            episode({"writes": 3, "broken": 1, "R4": 1, "R3": 1}),
            episode({"writes": 1}),
            episode({"writes": 9, "broken": 9}, excluded=True),
        ]
    )
    assert {name: value for name, value in found.items() if name.startswith("policy/")} == {
        "policy/broken/R3": 0.5,
        "policy/broken/R4": 0.5,
    }
    assert not any(name.startswith("policy/") for name in episode_metrics([episode({})]))
