"""τ²'s tasks as a v1 `Taskset`: which are played, with which settings, and what an episode was worth.

A row holds everything that its rollout needs, so that an environment server can play it from the row alone; keys are named
in it, never held. The episode itself is played by `harness.Tau2Harness`, which leaves its record in ``trace.info["tau2"]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import verifiers.v1 as vf
from pydantic import Field, create_model, model_validator

from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.backends.verifiers.settings import NOT_HERE, RECORD, figures, resolve, simulator_of, training_split
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.setup import playable
from tau2_slime.errors import ConfigError
from tau2_slime.local.gold import GoldScript
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn
from tau2_slime.world import domains
from tau2_slime.world.users import User

OWN_INSTRUCTIONS = "the agent's instructions and policy are the benchmark's own"

SETTINGS = [name for name in Tau2Config.model_fields if name not in NOT_HERE]


def _optional(name: str) -> Any:
    field = Tau2Config.model_fields[name]
    default = field.get_default(call_default_factory=True)
    description = f"{field.description} Not given: TAU2_{name.upper()}, else {default!r}."
    return (field.annotation | None, Field(default=None, description=description))  # type: ignore[operator]


_Settings: Any = create_model("_Settings", __base__=vf.TasksetConfig, **{name: _optional(name) for name in SETTINGS})


class Tau2TasksetConfig(_Settings):
    """`Tau2Config`'s settings, each unset by default: what is not given comes from ``TAU2_*`` and the defaults."""

    user_llm: str | None = None
    """The user simulator; another word for user_model."""

    def tau2(self) -> Tau2Config:
        """The configuration that these settings mean here and now.

        Raises:
            ConfigError: a setting is wrong.
        """
        if self.system_prompt is not None:
            raise ConfigError(f"system_prompt cannot be set: {OWN_INSTRUCTIONS}")
        given = {name: getattr(self, name) for name in SETTINGS}
        given["user_model"] = simulator_of(self.user_llm, self.user_model)
        config = resolve({name: value for name, value in given.items() if value is not None})
        config = config.model_copy(update={"task_split": training_split(config, self.task_split)})
        domains.tasks(config.domain, config.task_split)
        return config

    @model_validator(mode="after")
    def _told_at_once(self) -> Tau2TasksetConfig:
        self.tau2()
        return self


class Tau2TaskData(vf.TaskData):
    """One row: which task, and the settings that differ from the defaults."""

    domain: str
    task_split: str
    task_id: str
    settings: dict[str, Any] = Field(default_factory=dict)

    def config(self) -> Tau2Config:
        return Tau2Config(**{**self.settings, "domain": self.domain, "task_split": self.task_split})


class Tau2State(vf.State):
    """What lives as long as the rollout; a copy of it, and what is pickled, holds nothing of that."""

    user: Any = Field(default=None, exclude=True)
    """Builds the user from the world; None: the configured simulator."""
    episode: Any = Field(default=None, exclude=True)
    """The `TurnEpisode`, once it is played."""

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "user": None, "episode": None}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Tau2State:
        return vf.State.__deepcopy__(self.model_copy(update={"user": None, "episode": None}), memo)


class Tau2Task(vf.Task[Tau2TaskData, Tau2State]):
    """τ²'s reward; its parts, counters and blame as metrics."""

    user: Callable[[Any], User] | None = None
    """A user of one's own, built from the world (in code only; see `Tau2Taskset.user`)."""

    @property
    def key(self) -> str:
        return f"{self.data.domain}/{self.data.task_split}/{self.data.task_id}"

    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        trace.state.user = self.user

    async def finalize(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """A rollout without an episode's end (a deadline) has no reward: it fails here, so that it is never a 0."""
        played = trace.timing.agent.start > 0
        if played and (trace.info.get(RECORD) or {}).get("reward") is None:
            raise RuntimeError(f"the rollout ended ({trace.stop_condition}) before its episode did: there is no reward")

    @vf.reward(weight=1.0)
    async def tau2_reward(self, trace: vf.Trace) -> float:
        """τ²'s official reward; 0.0 for a task that nobody played."""
        record = trace.info.get(RECORD)
        return 0.0 if record is None else record["reward"]

    @vf.metric
    async def tau2_figures(self, trace: vf.Trace) -> Mapping[str, float]:
        record = trace.info.get(RECORD)
        return {} if record is None else figures(record["reward_info"], record["stats"], record["blame"])

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """True if the task's gold actions, played through this door, earn 1.0."""
        limits = {"max_steps": 100_000, "max_turns": 100_000, "max_errors": 100_000}
        config = self.data.config().model_copy(update={"user_model": "scripted", **limits})
        episode = await TurnEpisode.create(config, task_id=self.data.task_id)
        task = domains.find_task(config.domain, config.task_split, task_id=self.data.task_id)
        script = GoldScript.from_task(task, solo=config.agent_type == "solo")
        try:
            ask = await episode.begin()
            for index in itertools.count():
                if ask is None:
                    break
                ask = await episode.reply(_spoken(script.turn(index)))
        finally:
            await episode.close()
        result = episode.result
        if result is None or result.reward is None:
            raise RuntimeError(f"τ² gives gold no reward: {result.detail if result else 'no episode'}")
        return result.reward == 1.0


class Tau2Taskset(vf.Taskset[Tau2Task, Tau2TasksetConfig]):
    """The tasks of one split of one domain."""

    user: Callable[[Any], User] | None = None
    """In code: builds the user of every rollout from its `domains.World`; None: the configured simulator."""

    def __init__(self, config: Tau2TasksetConfig) -> None:
        super().__init__(config)
        self.tau2_config = config.tau2()

    def load(self) -> Iterator[Tau2Task]:
        config = self.tau2_config
        settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"domain", "task_split"})
        for task in playable(config, config.task_split):
            name = f"{config.domain}/{config.task_split}/{task.id}"
            data = Tau2TaskData(
                id=str(task.id),
                name=name,
                prompt=f"τ² task {name}: the episode opens the conversation.",
                domain=config.domain,
                task_split=config.task_split,
                task_id=str(task.id),
                settings=settings,
            )
            row = Tau2Task(data, self.config.task)
            row.user = self.user
            yield row


def _spoken(turn: Any) -> ParsedTurn:
    if turn.call is None:
        return ParsedTurn(content=turn.text, reasoning=None)
    name, arguments = turn.call
    return ParsedTurn(content=None, reasoning=None, calls=[ParsedCall(name, arguments, CallStatus.OK, "")])
