"""A stage: the real `generate` between a scripted router and a scripted user model, every sample looked at."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import pickle
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from tau2_slime import errors, generate_with_tau2
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.tokens import engine
from tau2_slime.world import users
from tests.faults.servers import Move, Router, UserModel, UserMove, call, log_prob, say
from tests.fresh import forget_users

Status = StandaloneSample.Status

TASK = {"domain": "mock", "task_split": "base", "task_id": "create_task_1"}
GOLD: tuple[Move, ...] = (
    call("create_task", user_id="user_1", title="Important Meeting"),
    say("Your case is now complete. The task 'Important Meeting' is there."),
)
"""What the task wants of the agent; after it the scripted user hangs up and τ² pays 1.0."""

MANY = 2**19
"""Tokens that a turn may have: scripts hold long turns, and a server samples no more than it was asked for."""

PATIENCE = 300.0
"""Seconds after which an episode that does not come back is lost."""


def check_sample(sample: Any) -> None:
    """The shape that slime's trainer, filters and dumps need, whatever happened."""
    assert isinstance(sample.status, Status)
    assert sample.status is not Status.PENDING
    assert sample.tokens
    assert all(type(token) is int and token >= 0 for token in sample.tokens)
    assert type(sample.response_length) is int
    assert 1 <= sample.response_length < len(sample.tokens)
    assert len(sample.loss_mask) == len(sample.rollout_log_probs) == sample.response_length
    assert set(sample.loss_mask) <= {0, 1}
    assert all(type(value) is float and math.isfinite(value) and value <= 0 for value in sample.rollout_log_probs)
    assert all(value == 0.0 for value, mask in zip(sample.rollout_log_probs, sample.loss_mask, strict=True) if not mask)
    assert type(sample.reward) is float
    assert 0.0 <= sample.reward <= 1.0
    assert type(sample.response) is str
    assert all(type(version) is str for version in sample.weight_versions)
    assert sample.non_generation_time >= 0
    assert sample.remove_sample is (sample.status in (Status.FAILED, Status.ABORTED))
    if sample.status is Status.FAILED:
        assert not any(sample.loss_mask)
    if sample.remove_sample:
        assert sample.reward == 0.0
    assert sample.metadata["raw_reward"] == sample.reward
    assert type(sample.metadata["round_number"]) is int
    told = sample.metadata["tau2"]
    assert told["excluded"] is sample.remove_sample
    assert told["blame"] in ("agent", "user", "infrastructure", "limit")
    if sample.remove_sample:
        assert told["detail"], "a failure says why"
        assert told["blame"] in ("user", "infrastructure")
    drift = told["stats"]["drift"]
    assert drift is None or drift["environment_mismatches"] == 0
    json.dumps(told)
    pickle.loads(pickle.dumps(sample.metadata))


def check_tokens(router: Router, sample: Any) -> None:
    """A trainable token is one that the router sent, with the log-probability that it sent."""
    prompt = len(sample.tokens) - sample.response_length
    response = sample.tokens[prompt:]
    for token, mask, value in zip(response, sample.loss_mask, sample.rollout_log_probs, strict=True):
        assert not mask or value == log_prob(token)
    if sample.status is Status.FAILED:
        return
    for ask in router.asks:
        if ask.key == sample.session_id:
            assert sample.tokens[: len(ask.ids)] == ask.ids, "a request's ids are the trajectory up to that point"
    if not sample.metadata["tau2"]["stats"]["junctions"].get("replaced"):
        sampled = [token for token, mask in zip(response, sample.loss_mask, strict=True) if mask]
        assert sampled == [token for ids in router.sent[sample.session_id] for token in ids]


class Stage:
    """Plays episodes against the two servers."""

    def __init__(self, checkpoint: Path, router: Router, user: UserModel) -> None:
        self.checkpoint, self.router, self.user = checkpoint, router, user
        self.results: list[Any] = []
        """The `InteractionResult` of each episode, in the order in which they ended."""

    def args(self, **tau2: Any) -> SimpleNamespace:
        settings = {"user_model": "scripted", "request_retries": 3, "request_timeout": 20, "drift_rate": 1.0, **tau2}
        return SimpleNamespace(
            hf_checkpoint=str(self.checkpoint),
            sglang_router_ip="127.0.0.1",
            sglang_router_port=self.router.port,
            rollout_max_context_len=MANY,
            tau2=settings,
            tau2_on_result=lambda sample, result: self.results.append(result),
        )

    @staticmethod
    def sample(name: str = "episode", **metadata: Any) -> StandaloneSample:
        return StandaloneSample(index=5, group_index=2, session_id=name, metadata={**TASK, **metadata})

    async def play(
        self,
        script: Sequence[Move] = GOLD,
        *,
        users: Sequence[UserMove] | None = None,
        task: dict[str, Any] | None = None,
        aborted: Callable[[], bool] | None = None,
        max_new_tokens: int = MANY,
        name: str = "episode",
        args: dict[str, Any] | None = None,
        **tau2: Any,
    ) -> StandaloneSample:
        """One episode. ``users``: the script of the user model, which is then asked; else the scripted user plays."""
        self.router.script = script
        if users is not None:
            self.user.script = users
            self.user.prompts.clear()
            tau2 = {"user_model": "openai/test", "user_base_url": self.user.url, "user_timeout": 20, **tau2}
        namespace = self.args(**tau2)
        for key, value in (args or {}).items():
            setattr(namespace, key, value)
        if aborted is not None:
            namespace.tau2_aborted = aborted
        sample = self.sample(name, **(task or {}))
        return await self.run(namespace, sample, max_new_tokens=max_new_tokens)

    async def run(self, args: Any, sample: Any, *, max_new_tokens: int = MANY) -> StandaloneSample:
        """`generate`, and everything that must hold of every sample."""
        params = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": max_new_tokens, "skip_special_tokens": False}
        before, given = copy.deepcopy(params), copy.deepcopy(sample.metadata)
        for ours in ("tau2", "tau2_resume", "raw_reward", "round_number"):  # of an interrupted episode
            given.pop(ours, None)
        was = (sample.index, sample.group_index, sample.session_id, sample.prompt)
        returned = await asyncio.wait_for(generate_with_tau2.generate(args, sample, params), PATIENCE)
        assert returned is sample
        assert params == before
        assert (sample.index, sample.group_index, sample.session_id, sample.prompt) == was
        assert {key: sample.metadata[key] for key in given} == given
        check_sample(sample)
        check_tokens(self.router, sample)
        if self.results:
            self.results[-1].to_json().encode()
        return sample


def outcome(sample: Any) -> tuple[Any, str, str]:
    """(status, termination, blame): what a test asserts."""
    told = sample.metadata["tau2"]
    return sample.status, told["termination"], told["blame"]


def detail(sample: Any) -> str:
    return sample.metadata["tau2"]["detail"]


def stats(sample: Any) -> dict[str, Any]:
    return sample.metadata["tau2"]["stats"]


class Flag:
    """slime's abort flag."""

    def __init__(self) -> None:
        self.on = False

    def set(self) -> None:
        self.on = True

    def __call__(self) -> bool:
        return self.on


PAID = (Status.COMPLETED, "user_stop", "agent")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "surprise: the test plants a bug, whose traceback is logged")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that do not wait, no settings from outside, every failure told anew."""
    forget_users()
    for module in (engine, users.simulator):
        monkeypatch.setattr(module, "BACKOFF_FIRST", 0.01)
        monkeypatch.setattr(module, "BACKOFF_MAX", 0.05)
    for name in [*os.environ]:
        if name.startswith("TAU2_") or name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(errors, "_once_per_cause", errors.OncePerCause())


@pytest.fixture(autouse=True)
def no_surprise(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A fault that the package foresaw leaves no traceback; a test that plants a bug says so with ``surprise``."""
    yield
    if request.node.get_closest_marker("surprise") is None:
        found = [r for r in caplog.get_records("call") if r.name.startswith("tau2_slime") and r.exc_text]
        assert not found, f"unforeseen: {found[0].getMessage()}: {found[0].exc_text}"


@pytest_asyncio.fixture
async def stage(checkpoint: Path, tokenizer: Any) -> AsyncIterator[Stage]:
    router, user = Router(tokenizer), UserModel()
    await router.start()
    await user.start()
    yield Stage(checkpoint, router, user)
    await router.close()
    await user.close()
