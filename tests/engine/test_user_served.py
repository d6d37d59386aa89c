"""A user simulator that slime itself serves: the real sglang server's chat endpoint behind the real router, found by name.

A tiny random model plays the user; what it says is worthless, that it says it is what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tau2_slime.generate_with_tau2 import generate
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.world.users import spending
from tests.engine.cluster import CONTEXT_LENGTH, Cluster, Forge
from tests.fresh import forget_users

PARAMS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 48, "skip_special_tokens": False, "no_stop_trim": True}


@pytest.fixture(scope="module")
def second_model(forge: Forge) -> Iterator[Cluster]:
    """What ``--sglang-config`` starts beside the actor: workers of another model behind a router of their own."""
    with Cluster.start(forge, 1) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget_users()
    yield
    forget_users()


async def play(
    checkpoint: Path, actor: Cluster, routers: dict[str, Any] | None, name: str = "user"
) -> StandaloneSample:
    simulator = {
        "name": "house",
        "model": "openai/default",
        "base_url": f"sglang:{name}",
        "args": {"temperature": 1.0, "max_tokens": 40, "seed": 5},
    }
    args = SimpleNamespace(
        hf_checkpoint=str(checkpoint),
        sglang_router_ip="127.0.0.1",
        sglang_router_port=actor.router.port,
        sglang_model_routers=routers,
        sglang_context_length=CONTEXT_LENGTH,
        rollout_max_context_len=CONTEXT_LENGTH,
        tau2={"user_simulators": [simulator], "user_failover": "next", "user_budget": 1.0, "max_turns": 6},
    )
    metadata = {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}
    sample = StandaloneSample(index=0, group_index=0, session_id="served", metadata=metadata)
    filled: StandaloneSample = await generate(args, sample, dict(PARAMS))
    return filled


async def test_the_second_model_plays_the_user(cluster: Cluster, second_model: Cluster, checkpoint: Path) -> None:
    routers = {"actor": ("127.0.0.1", cluster.router.port), "user": ("127.0.0.1", second_model.router.port)}
    sample = await play(checkpoint, cluster, routers)
    told = sample.metadata["tau2"]
    assert told["blame"] in ("agent", "limit"), told["detail"]
    assert told["user_played"] == ["house"]
    stats = told["stats"]
    assert stats["user_turns"] >= 1 and stats["user_calls"] >= stats["user_turns"]
    assert stats["user_completion_tokens"] > 0 and stats["user_cost"] == 0.0
    account = spending.accounts()["house"]
    assert account.prompt_tokens == stats["user_prompt_tokens"] > account.completion_tokens
    assert told["tokens"]["sampled"] > 0  # of a turn that may not have ended by itself: the policy is random too


async def test_a_model_that_is_not_served_is_one_clear_error(cluster: Cluster, checkpoint: Path) -> None:
    routers = {"actor": ("127.0.0.1", cluster.router.port)}
    sample = await play(checkpoint, cluster, routers)
    told = sample.metadata["tau2"]
    assert told["termination"] == "config_error"
    assert "'user'" in told["detail"] and "actor" in told["detail"] and "--sglang-config" in told["detail"]


async def test_a_conversation_beyond_its_context_is_said_so(second_model: Cluster, checkpoint: Path) -> None:
    from tau2_slime.errors import UserSimulatorError
    from tau2_slime.world import tau2_compat
    from tau2_slime.world.users import LitellmUser, UserSpec

    spec = UserSpec("openai/default", base_url=f"{second_model.url}/v1", retries=3)
    user = LitellmUser(spec, tools=None, instructions="word " * (CONTEXT_LENGTH + 100))
    user.start([])
    with pytest.raises(UserSimulatorError, match="1 tries"):
        await user.reply(tau2_compat.load().FIRST_AGENT_MESSAGE)
    assert user.stats.faults == {"context_overflow": 1}
