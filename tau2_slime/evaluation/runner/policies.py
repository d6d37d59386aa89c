"""Who plays the agent: a router of sglang servers (the token path of training), a litellm model, or the embedded policy."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.examples import examples_of
from tau2_slime.episode.play import play_and_score
from tau2_slime.episode.result import InteractionResult, failed_result
from tau2_slime.episode.setup import build_episode, choose_task
from tau2_slime.episode.users import PlayedBy, check_user, seeded, user_role
from tau2_slime.errors import CannotResume, ConfigError
from tau2_slime.evaluation.plan.datasets import Item, Plan
from tau2_slime.evaluation.runner.api_agent import ApiSpeaker, ApiSpec, litellm_sampling
from tau2_slime.evaluation.runner.budget import Budget
from tau2_slime.evaluation.store.records import Job
from tau2_slime.local.tokenizer import local_checkpoint
from tau2_slime.observe.unfinished import Unfinished
from tau2_slime.outcome import Termination
from tau2_slime.policy.checkpoint import CheckpointProfile, profile_for
from tau2_slime.policy.context_plan import longest_first_prompt
from tau2_slime.runtime.address import address, answers
from tau2_slime.runtime.loops import offload
from tau2_slime.slime_adapter import resume
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.world import judge

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup
    from tau2_slime.local.policy_server import PolicyServer

Stopped = Callable[[], bool]
"""Whether the run is to stop: then an episode ends as aborted."""


class PolicyBackend(Protocol):
    """Plays episodes while it is entered as an asynchronous context manager."""

    async def __aenter__(self) -> PolicyBackend:
        """Make it ready.

        Raises:
            ConfigError: it cannot be used; the message says why.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    unfinished: Unfinished | None
    """Where the conversations of a person are kept until they are recorded; None: nobody sits at the terminal."""

    def describe(self) -> dict[str, Any]:
        """What is evaluated, as plain data for the manifest's ``subject``; known once entered."""

    async def play(self, job: Job, stopped: Stopped) -> InteractionResult:
        """Play one episode. It raises nothing but CancelledError; a failure is a result."""

    def paid_models(self) -> list[tuple[str, bool]]:
        """The litellm models that cost money, each with whether it is behind an endpoint of the user's own."""


class RouterPolicy:
    """The token path: slime's own ``generate`` against a router."""

    def __init__(
        self,
        url: str,
        checkpoint: str,
        config: Tau2Config,
        *,
        max_context_len: int | None = None,
        name: str = "",
        trust_remote_code: bool = False,
    ) -> None:
        """``url``: the router's, ``http://host:port``. ``checkpoint``: folder or hub name of the served model.

        ``config``: the first dataset's, for the chat template's arguments. ``max_context_len``: tokens of a trajectory.
        ``name``: what the report calls the policy, by default the checkpoint. ``trust_remote_code``: its tokenizer may run
        code that it brings along.
        """
        self.url, self.checkpoint, self.name = url, checkpoint, name or checkpoint
        self._config, self._max_context_len = config, max_context_len
        self._trusted = trust_remote_code
        self._language: CheckpointProfile | None = None
        self.unfinished: Unfinished | None = None

    async def __aenter__(self) -> RouterPolicy:
        host, port = address(self.url)
        self._language = await profile_for(self.checkpoint, self._config, trust_remote_code=self._trusted)
        await answers(host, port)
        self._host, self._port = host, port
        return self

    async def require_room(self, plan: Plan) -> None:
        """Raises ConfigError if the first prompt of an episode is longer than the context."""
        assert self._language is not None
        played = [(item.config, item.task_id) for dataset in plan.datasets for item in dataset.items]
        await offload(longest_first_prompt, played, self._language, self._max_context_len)

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close: this process did not start the router, and its connections end with the event loop."""

    def describe(self) -> dict[str, Any]:
        assert self._language is not None
        template = self._language.delta.template
        return {
            "kind": "sglang",
            "name": self.name,
            "checkpoint": self.checkpoint,
            "chat_template": hashlib.sha256(template.template_source.encode()).hexdigest(),
            "tool_call_parser": self._language.parser.name,
            "max_context_len": self._max_context_len,
        }

    def paid_models(self) -> list[tuple[str, bool]]:
        return []

    async def play(self, job: Job, stopped: Stopped) -> InteractionResult:
        from tau2_slime.generate_with_tau2 import generate

        results: list[InteractionResult] = []
        args = SimpleNamespace(
            hf_checkpoint=self.checkpoint,
            sglang_router_ip=self._host,
            sglang_router_port=self._port,
            eval_max_context_len=self._max_context_len,
            tau2_trust_remote_code=self._trusted,
            tau2={},
            tau2_aborted=stopped,
            tau2_on_result=lambda _, result: results.append(result),
        )
        name, kept = job.label, self.unfinished
        sample = (kept.take(name) if kept is not None else None) or StandaloneSample(
            index=job.attempt,
            prompt=name,
            metadata=dict(job.item.metadata),
            session_id=name,  # the same in every run, so that a server that routes or draws by it repeats itself
        )
        if kept is not None:
            args.tau2_on_setup = functools.partial(kept.follow, name)
        await generate(args, sample, dict(job.dataset.sampling), evaluation=True)
        return results[0]


class EmbeddedPolicy(RouterPolicy):
    """The package's own scripted policy behind its own server. It needs no model, no key and no network."""

    _SEED = 0

    def __init__(
        self,
        config: Tau2Config,
        *,
        checkpoint: str | None = None,
        gold_rate: float = 1.0,
        mistakes: float | None = None,
        noise: float | None = None,
        spelling: float | None = None,
        max_context_len: int | None = None,
        name: str = "",
        trust_remote_code: bool = False,
        played: Iterable[tuple[str, str]] = (),
    ) -> None:
        """``checkpoint``: whose chat template it speaks; None: the package's own. ``gold_rate``: share of episodes that it
        plays to the end; in the others it falls silent and earns nothing. The other habits, and ``played``: see
        `PolicyServer`.
        """
        name = name or f"embedded gold ({gold_rate:g})"
        super().__init__(
            "", "", config, max_context_len=max_context_len, name=name, trust_remote_code=trust_remote_code
        )
        self.gold_rate, self._given, self._played = gold_rate, checkpoint, frozenset(played)
        habits = {"mistakes": mistakes, "noise": noise, "spelling": spelling}
        self.habits = {habit: value for habit, value in habits.items() if value is not None}
        self._server: PolicyServer | None = None

    async def __aenter__(self) -> EmbeddedPolicy:
        from tau2_slime.local.policy_server import PolicyServer

        self.checkpoint = self._given or str(await offload(local_checkpoint))
        habits = self.habits
        self._server = PolicyServer(
            self.checkpoint,
            gives_up=1 - self.gold_rate,
            seed=self._SEED,
            mistakes=habits.get("mistakes", 0.0),
            noise=habits.get("noise", 0.0),
            spelling=habits.get("spelling", 0.1),
            played=self._played,
        )
        await self._server.start()
        self.url = self._server.url
        await super().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await self._server.stop()

    def describe(self) -> dict[str, Any]:
        seen = super().describe()
        known = {"kind": "embedded", "checkpoint": self._given or "", "gold_rate": self.gold_rate, "seed": self._SEED}
        return {**seen, **known, **self.habits}


class ApiPolicy:
    """A litellm model: messages instead of tokens."""

    def __init__(self, spec: ApiSpec, *, name: str = "") -> None:
        """``name``: what the report calls the policy, by default the model."""
        self.spec, self.name = spec, name or spec.model
        self.unfinished: Unfinished | None = None

    async def __aenter__(self) -> ApiPolicy:
        self.spec.connection()
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        described = {"kind": "litellm", "name": self.name, "model": spec.model}
        return {**described, "base_url": spec.base_url, "args": dict(spec.args)}

    def paid_models(self) -> list[tuple[str, bool]]:
        return [(self.spec.model, self.spec.base_url is not None)]

    async def setup(
        self,
        config: Tau2Config,
        task_id: str,
        user_model: str,
        attempt: int,
        *,
        sampling: Mapping[str, Any],
        training: bool = False,
    ) -> EpisodeSetup:
        """What an episode is played with. ``sampling``: by sglang's names. ``training``, ``attempt``: see `build_episode`.

        Raises:
            ConfigError: the task cannot be played so.
        """
        spec = dataclasses.replace(self.spec, args=seeded(self.spec.args, attempt))
        speaker = ApiSpeaker(spec, litellm_sampling(dict(sampling)))
        task = await choose_task(config, task_id=task_id)
        setup = await build_episode(config, task, speaker, user_model, attempt=attempt, training=training)
        if isinstance(spec.args.get("seed"), int):
            setup.seeds["policy"] = spec.args["seed"]
        return setup

    async def play(self, job: Job, stopped: Stopped) -> InteractionResult:
        config = job.item.config
        model = config.user_model_for(None, evaluation=True)
        try:
            setup = await self.setup(config, job.item.task_id, model, job.attempt, sampling=job.dataset.sampling)
            name, kept = job.label, self.unfinished
            before = kept.take(name) if kept is not None else None
            saved = resume.read(before, setup.identity) if before is not None else None
            if kept is not None:
                kept.follow(name, setup, StandaloneSample(index=job.attempt, prompt=name))
            return await play_and_score(setup, aborted=stopped, saved=saved)
        except (ConfigError, CannotResume) as error:
            return failed_result(str(error), termination=Termination.CONFIG_ERROR)


def check_users(items: Iterable[Item], budget: Budget) -> None:
    """Check, before anything is played, that every user model of the plan can be asked, and that there are examples.

    Raises:
        ConfigError: ``few_shot`` cannot be used; a model is unknown, its key is not set, or ``budget`` has a limit and the
            model no known price.
    """
    seen: dict[tuple[str | None, ...], Tau2Config] = {}
    judged: dict[str | None, Tau2Config] = {}
    for item in items:
        config = item.config
        examples_of(config, config.domain, config.task_split, str(item.task_id))
        if config.allow_llm_judge:
            judged.setdefault(config.judge_model, config)
        if config.agent_type != "solo":
            user = (
                config.user_path,
                config.user_strategy,
                config.user_model,
                config.user_base_url,
                config.user_api_key_var,
            )
            seen.setdefault(user, config)
    for config in seen.values():
        check_user(config, config.user_model)
        simulator = config.simulator(config.user_model)
        if user_role(config, config.user_model).played_by is PlayedBy.MODEL:
            budget.require_prices([(simulator.model, simulator.base_url is not None)])
    for config in judged.values():
        budget.require_prices([(config.judge_model or judge.tau2s_model(), config.judge_base_url is not None)])
