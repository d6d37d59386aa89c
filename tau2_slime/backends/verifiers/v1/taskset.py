"""τ²'s tasks as a v1 `Taskset`: which tasks are played, with which settings, and what an episode was worth.

A row holds everything that its rollout needs, so an environment server can play it from the row alone. Rows name the
variables that have keys, never the keys. `harness.Tau2Harness` plays the episode and leaves its record in
``trace.info["tau2"]``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import verifiers.v1 as vf
from pydantic import ConfigDict, Field, create_model, model_validator

from tau2_slime.backends.turns import TurnEpisode
from tau2_slime.backends.verifiers.results import RECORD_KEY, episode_metrics
from tau2_slime.backends.verifiers.settings import WITHOUT_EFFECT, choose_user_model, resolve, training_split
from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.setup import playable
from tau2_slime.errors import ConfigError
from tau2_slime.local.gold import GoldScript, ScriptTurn
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn
from tau2_slime.world import domains
from tau2_slime.world.environment import World
from tau2_slime.world.users import User

OWN_INSTRUCTIONS = "the agent's instructions and policy are the benchmark's own"

SETTINGS = [name for name in Tau2Config.model_fields if name not in WITHOUT_EFFECT]
"""Settings of `Tau2Config` that a taskset takes."""


def _optional_field(name: str) -> tuple[Any, Any]:
    """A pydantic field definition of that setting, None by default."""
    field = Tau2Config.model_fields[name]
    default = field.get_default(call_default_factory=True)
    description = f"{field.description} Not given: TAU2_{name.upper()}, else {default!r}."
    return (field.annotation | None, Field(default=None, description=description))  # type: ignore[operator]


_FIELDS: dict[str, Any] = {name: _optional_field(name) for name in SETTINGS}
_Settings: Any = create_model("_Settings", __base__=vf.TasksetConfig, **_FIELDS)


class Tau2TasksetConfig(_Settings):
    """`Tau2Config`'s settings. One that is not given comes from its ``TAU2_*`` variable, else from the defaults."""

    user_llm: str | None = None
    """The user simulator; another name for user_model."""

    def tau2_config(self) -> Tau2Config:
        """The configuration that these settings and the environment's variables give now.

        Raises:
            ConfigError: a setting is wrong.
        """
        if self.system_prompt is not None:
            raise ConfigError(f"system_prompt cannot be set: {OWN_INSTRUCTIONS}")
        given = {name: getattr(self, name) for name in SETTINGS}
        given["user_model"] = choose_user_model(self.user_llm, self.user_model)
        config = resolve({name: value for name, value in given.items() if value is not None})
        config = config.model_copy(update={"task_split": training_split(config, self.task_split)})
        domains.tasks(config.domain, config.task_split)
        return config

    @model_validator(mode="after")
    def _check_now(self) -> Tau2TasksetConfig:
        self.tau2_config()
        return self


class Tau2TaskData(vf.TaskData):
    """One row: which task, and the settings that differ from the defaults."""

    domain: str
    task_split: str
    task_id: str
    settings: dict[str, Any] = Field(default_factory=dict)

    def config(self) -> Tau2Config:
        """The row's configuration. The variables of the process that plays it do not change it."""
        return Tau2Config(**{**self.settings, "domain": self.domain, "task_split": self.task_split})


class Tau2State(vf.State):
    """What lives as long as the rollout. A copy of it, and what is pickled, has neither user nor episode."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    user: Callable[[World], User] | None = Field(default=None, exclude=True)
    """Builds the user from the episode's world; None: the configured simulator."""
    episode: TurnEpisode | None = Field(default=None, exclude=True)
    """The episode, once it is played."""

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "user": None, "episode": None}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Tau2State:
        copied: Tau2State = vf.State.__deepcopy__(self.model_copy(update={"user": None, "episode": None}), memo)
        return copied


class Tau2Task(vf.Task[Tau2TaskData, Tau2State]):
    """One row with its reward; the reward's parts, counters and blame are metrics."""

    user: Callable[[World], User] | None = None
    """Builds a user of your own; set it in code (see `Tau2Taskset.user`)."""

    @property
    def key(self) -> str:
        """``domain/split/task id``."""
        return f"{self.data.domain}/{self.data.task_split}/{self.data.task_id}"

    async def setup(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """Hand the user over to the harness."""
        trace.state.user = self.user

    async def finalize(self, trace: vf.Trace, runtime: vf.Runtime) -> None:
        """Fail a rollout that ended before its episode did (a deadline), so that it is never a reward of 0.

        Raises:
            RuntimeError: the episode was begun and has no reward.
        """
        played = trace.timing.agent.start > 0
        if played and (trace.info.get(RECORD_KEY) or {}).get("reward") is None:
            raise RuntimeError(
                f"the rollout ended ({trace.stop_condition}) before its episode did, so it has no reward"
            )

    @vf.reward(weight=1.0)
    async def tau2_reward(self, trace: vf.Trace) -> float:
        """τ²'s official reward, 0.0 to 1.0; 0.0 for a task that nobody played."""
        record = trace.info.get(RECORD_KEY)
        return 0.0 if record is None else record["reward"]

    @vf.metric
    async def tau2_metrics(self, trace: vf.Trace) -> Mapping[str, float]:
        """`results.episode_metrics`; empty for a task that nobody played."""
        record = trace.info.get(RECORD_KEY)
        return {} if record is None else episode_metrics(record["reward_info"], record["stats"], record["blame"])

    async def validate(self, runtime: vf.Runtime) -> bool | None:
        """True if the task's gold actions, played through this door, earn 1.0.

        Raises:
            ConfigError: the task cannot be played.
            RuntimeError: τ² gives the gold actions no reward.
        """
        limits = {"max_steps": 100_000, "max_turns": 100_000, "max_errors": 100_000}
        config = self.data.config().model_copy(update={"user_model": "scripted", **limits})
        episode = await TurnEpisode.create(config, task_id=self.data.task_id)
        task = domains.find_task(config.domain, config.task_split, task_id=self.data.task_id)
        script = GoldScript.from_task(task, solo=config.agent_type == "solo")
        try:
            request = await episode.begin()
            for index in itertools.count():
                if request is None:
                    break
                request = await episode.reply(_parsed(script.turn(index)))
        finally:
            await episode.close()
        result = episode.result
        if result is None or result.reward is None:
            raise RuntimeError(f"τ² gives the gold actions no reward: {result.detail if result else 'no episode'}")
        return result.reward == 1.0


class Tau2Taskset(vf.Taskset[Tau2Task, Tau2TasksetConfig]):
    """The tasks of one split of one domain."""

    user: Callable[[World], User] | None = None
    """Builds the user of every rollout from its world; set it in code. None: the configured simulator."""

    def __init__(self, config: Tau2TasksetConfig) -> None:
        """Raises ConfigError if a setting is wrong."""
        super().__init__(config)
        self.tau2_config = config.tau2_config()

    def load(self) -> Iterator[Tau2Task]:
        """The rows in τ²'s order. Tasks that only an LLM judge can grade are left out with a warning."""
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


def _parsed(turn: ScriptTurn) -> ParsedTurn:
    if turn.call is None:
        return ParsedTurn(content=turn.text, reasoning=None)
    name, arguments = turn.call
    return ParsedTurn(content=None, reasoning=None, calls=[ParsedCall(name, arguments, CallStatus.OK, "")])
