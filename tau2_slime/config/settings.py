"""One typed configuration and one precedence rule.

``sample.metadata`` (a dataset's ``metadata_overrides`` included) beats ``TAU2_*`` environment variables, which beat the
``tau2:`` mapping of slime's ``--custom-config-path`` YAML, which beats the defaults. Settings hold the *names* of
environment variables, never secrets: slime uploads its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tau2_slime.config import sources, task_split
from tau2_slime.config.own_functions import MetricPath
from tau2_slime.config.reward_shaping import RewardShaping
from tau2_slime.config.secret_names import KeylessArguments, KeylessText, KeylessUrl, VariableName
from tau2_slime.config.simulators import Failover, Rotation, Simulator, UserStrategy, check_pool, choose
from tau2_slime.errors import ConfigError
from tau2_slime.outcome import Flaw

AgentType = Literal["llm", "solo", "gt"]
ArgumentTypes = Literal["served", "schema"]


def _strategy(name: str) -> str:
    if name not in (*STRATEGIES, "tool-calling") and "." not in name:
        raise ValueError(f"there are: {', '.join(STRATEGIES)}, few-shot, or the dotted path of a format of your own")
    return "native" if name == "tool-calling" else name  # τ-bench v1's name for it


STRATEGIES = ("native", "act", "react")
HUMAN = "human"
"""The user strategy with which a person at the terminal plays the user."""
Strategy = Annotated[str, AfterValidator(_strategy)]


class Tau2Config(BaseModel):
    """Every setting of an episode. An unknown key is an error.

    >>> Tau2Config.resolve({"domain": "telecom", "max_turns": 50}, {"task_split": "test"}, environ={}).max_turns
    50
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    domain: str = "retail"
    """A domain of the installed τ²: airline, retail, telecom, mock, ..."""
    task_split: str = "train"
    """A split of that domain, as τ² names it (train, test, base, ...), or a task file: ``file:PATH``, or its name."""
    task_files: dict[str, str] = Field(default_factory=dict)
    """Names for task files, such as {mine: tasks.jsonl}; ``task_split: mine`` then plays that file."""
    agent_type: AgentType = "llm"
    """llm: τ²'s agent. solo: the agent works on a ticket, without a user. gt: the gold actions are in the prompt."""
    agent_path: str | None = Field(default=None, min_length=1)
    """Your own class that plays the agent, such as my.module.MyAgent, or the name of an agent in τ²'s registry."""
    agent_strategy: Strategy = "native"
    """How the agent acts: native (the chat template's tool calls), act, react (in plain text), or my.module.MyFormat."""
    few_shot: str | None = Field(default=None, min_length=1)
    """A file of example conversations for the system prompt, written by ``tau2-slime export --format examples``."""
    few_shot_count: int = Field(default=3, ge=1)
    """How many of them an episode is shown."""
    few_shot_seed: int = 0
    """Decides which: the same in every episode of a domain, except that a task is never its own example."""

    user_model: KeylessText = "gpt-4o-mini"
    """The user simulator: any litellm model, or ``scripted`` (plays the task's gold script; needs no network)."""
    user_path: str | None = Field(default=None, min_length=1)
    """Your own class that plays the user, such as my.module.MyUser, or the name of a user in τ²'s registry."""
    user_base_url: KeylessUrl = None
    """The simulator's endpoint, such as http://host:8000/v1; unset: litellm's own for the model's provider."""
    user_api_key_var: VariableName = None
    """The NAME of the variable that holds the key; unset: OPENAI_API_KEY for OpenAI models, else litellm's own choice."""
    user_args: KeylessArguments = Field(default_factory=lambda: {"temperature": 0.0})
    """Further litellm arguments, such as temperature, max_tokens, seed. Keys are refused, in headers too."""
    user_model_rotation: tuple[KeylessText, ...] = ()
    """Training only: sample i talks to ``models[i % n]``. Names of `user_simulators`, or models, such as ``a,b,c``."""
    user_simulators: tuple[Simulator, ...] = ()
    """The pool: each has name, model, base_url, api_key_var, args, weight, concurrency, price, strategy, verifier."""
    user_rotation: Rotation = "within_group"
    """Training only: who gets which simulator: within_group (by sample), across_groups (by group), weighted (by weight)."""
    user_strategy: UserStrategy | Literal["human"] = "llm"
    """How a simulator comes to a message: llm (one call), rules, react, verify, reflection; human: you type it."""
    user_failover: Failover = "wait"
    """Training only: when a simulator is out, ``wait`` for it, or let the ``next`` of the pool go on."""
    user_quality_gate: tuple[Flaw, ...] = ()
    """Training only: flaws of the simulator, such as ``role_flip,leak``, that exclude an episode. All are measured."""
    user_budget: float | None = Field(default=None, gt=0)
    """Training only: US dollars that simulators and judge of this process may cost; then the run ends. Unset: no limit."""
    user_patience: float = Field(default=600.0, ge=0)
    """Seconds that one reply waits while the simulator's endpoint is out or asks for a pause; then the episode fails."""
    user_timeout: float = Field(default=120.0, gt=0)
    """Seconds that one call of the simulator may take."""
    user_retries: int = Field(default=4, ge=0)
    """Further tries after a failed or unusable reply; the waits between them double."""
    user_concurrency: int = Field(default=128, ge=1)
    """Simulator calls in flight per endpoint and event loop."""

    max_steps: int = Field(default=200, ge=1)
    """Limit of τ²'s orchestrator steps (every message and tool result is one); an episode that reaches it earns 0."""
    max_errors: int = Field(default=10, ge=1)
    """Limit of tool errors, of agent and user together."""
    max_turns: int = Field(default=30, ge=1)
    """Limit of messages, of agent and user together; tool results do not count."""

    tool_call_parser: str = "auto"
    """Format of the policy's tool calls: auto (from the chat template), hermes, qwen_xml, glm, or sglang:<name>."""
    argument_types: ArgumentTypes = "served"
    """Arguments of JSON calls: ``served``, exactly as said; ``schema``, read by the tool's schema (7 for a text as "7")."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Passed to the chat template, such as {enable_thinking: false}."""
    stop_mismatch: Literal["replace", "end"] = "replace"
    """A turn that ended with another stop token than the template's own: ``replace`` the token, or ``end`` the episode."""
    drift_rate: float = Field(default=0.02, ge=0, le=1)
    """Share of episodes whose tokens are also compared with a full re-render; it only feeds a metric."""
    request_timeout: float = Field(default=1800.0, gt=0)
    """Seconds that one call of the policy's server may take."""
    request_retries: int = Field(default=6, ge=0)
    """Further tries of a call of the policy's server after refused connections, HTTP 429 and 5xx, and unreadable answers."""
    allow_llm_judge: bool = False
    """Play tasks whose reward τ² asks an LLM judge for."""
    judge_model: KeylessText | None = Field(default=None, min_length=1)
    """The model that judges, by litellm's name; unset: the one that τ² names."""
    judge_base_url: KeylessUrl = None
    """The judge's endpoint; unset: litellm's own for the model's provider."""
    judge_api_key_var: VariableName = None
    """The NAME of the variable that holds the judge's key; unset: OPENAI_API_KEY for OpenAI models, else litellm's own."""
    retrieval_variant: str | None = Field(default=None, min_length=1)
    """banking_knowledge only, which needs it: how the agent reads the documents, such as bm25_grep. See `banking.md`."""
    env_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of τ²'s environment constructor, such as {retrieval_kwargs: {top_k: 5}} for banking_knowledge."""

    rollout_workers: int = Field(default=0, ge=0)
    """Processes that play slime's episodes; 0: slime's own. The job's setting, the same for all rows. See `scale.md`."""

    metrics: tuple[MetricPath, ...] = ()
    """Your own metrics: functions of a finished episode, such as my.module.my_metric. Their means are logged."""
    episode_log: str | None = Field(default=None, min_length=1)
    """Training only: the hooks keep a short line for each episode in this folder, for `tau2-slime view`. Unset: none."""
    group_table: int = Field(default=0, ge=0)
    """Training only: a W&B table with so many of the worst and of the most divided groups of each step; 0: none."""
    reward_shaping: RewardShaping | None = None
    """Training only: partial credit and penalties, see `reward_shaping.md`. Unset: the reward is τ²'s."""
    simulator_baseline: Literal["none", "batch"] = "none"
    """`post_process_rewards`: ``batch`` also takes out how easy each user simulator is, as estimated over the batch."""
    min_valid_samples: int = Field(default=2, ge=2)
    """`keep_informative_groups`: a group with fewer samples that count is dropped."""
    max_weight_lag: int | None = Field(default=None, ge=0)
    """Weight updates that a group's oldest trained token may be behind; beyond it nothing is trained. Unset: no bound."""

    @field_validator("user_model_rotation", "user_quality_gate", "metrics", mode="before")
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        if value is None:
            return ()
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("task_files")
    @classmethod
    def _check_names(cls, value: dict[str, str]) -> dict[str, str]:
        task_split.check_names(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _find_task_file(cls, values: object) -> object:
        if isinstance(values, dict) and isinstance(values.get("task_split"), str):
            files = values.get("task_files")
            split = task_split.named(values["task_split"], files if isinstance(files, dict) else {})
            return {**values, "task_split": split}
        return values

    @model_validator(mode="before")
    @classmethod
    def _find_examples(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        path, wanted = values.get("few_shot"), values.get("agent_strategy") == "few-shot"
        if wanted and path is None:
            raise ValueError("agent_strategy few-shot needs few_shot: a file of `tau2-slime export --format examples`")
        strategy = {"agent_strategy": "native"} if wanted else {}
        absolute = {"few_shot": os.path.abspath(os.path.expanduser(path))} if isinstance(path, str) and path else {}
        return {**values, **strategy, **absolute}

    @model_validator(mode="after")
    def _check_pool(self) -> Tau2Config:
        check_pool(self.user_simulators, self.user_rotation)
        return self

    @model_validator(mode="after")
    def _one_user(self) -> Tau2Config:
        if self.user_strategy == HUMAN and self.user_path is not None:
            raise ValueError("user_strategy human: a person plays the user, so user_path would change nothing")
        return self

    @model_validator(mode="after")
    def _one_retrieval_variant(self) -> Tau2Config:
        inner = self.env_kwargs.get("retrieval_variant", self.retrieval_variant)
        if self.retrieval_variant is not None and inner != self.retrieval_variant:
            raise ValueError(f"retrieval_variant={self.retrieval_variant!r} and env_kwargs name two: {inner!r}")
        return self

    @model_validator(mode="after")
    def _one_reader_of_calls(self) -> Tau2Config:
        if self.agent_strategy != "native" and self.tool_call_parser != "auto":
            raise ValueError(
                f"tool_call_parser would change nothing: agent_strategy {self.agent_strategy} reads the turns"
            )
        return self

    @classmethod
    def resolve(
        cls,
        yaml_mapping: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Tau2Config:
        """Merge the three sources over the defaults.

        Args:
            yaml_mapping: the ``tau2:`` mapping of slime's ``--custom-config-path``.
            metadata: a sample's metadata. Only names of settings, and near misses of them, are looked at.
            environ: environment variables; None: those of the process.

        Raises:
            ConfigError: an unknown key or a bad value, naming the key, where it came from and what is allowed.
        """
        given = metadata or {}
        mine = {key: value for key, value in given.items() if sources.ALIASES.get(key, key) in cls.model_fields}
        variables = {
            name: value
            for name, value in (os.environ if environ is None else environ).items()
            if name.startswith("TAU2_")
        }
        # Hundreds of samples a second are told the same settings: they are read and checked once.
        told = repr((yaml_mapping, mine, list(given), variables))
        found = _resolved.get(told)
        if found is None:
            values, source = sources.merged(yaml_mapping, given, variables, cls.model_fields)
            try:
                found = cls(**values)
            except ValidationError as error:
                raise sources.not_valid(error, values, source) from None
            if len(_resolved) >= _RESOLVED_KEPT:
                _resolved.clear()
            _resolved[told] = found
        return found

    def require_named_task(self) -> None:
        """Nothing, if a row's domain and split were chosen by someone: the defaults never say which task a row is.

        Raises:
            ConfigError: naming what is missing.
        """
        missing = [name for name in ("domain", "task_split") if name not in self.model_fields_set]
        if missing:
            raise ConfigError(
                f"nothing names the row's {' and '.join(missing)}: not its metadata, no TAU2_* variable, no 'tau2' mapping. "
                'Write {"domain": "retail", "task_split": "train", "task_id": "0"} into the metadata, and check that '
                "slime's --metadata-key names the column that holds it"
            )

    @property
    def environment(self) -> dict[str, Any]:
        """What τ²'s environment constructor is told for every task: `env_kwargs` and `retrieval_variant`."""
        named = {} if self.retrieval_variant is None else {"retrieval_variant": self.retrieval_variant}
        return {**named, **self.env_kwargs}

    def user_model_for(self, index: int | None, *, evaluation: bool, group_index: int | None = None) -> str:
        """The name of a sample's simulator: from the pool in training, `user_model` in evaluation or without a pool."""
        pool = () if evaluation else self.user_pool
        if not pool:
            return self.user_model
        return pool[choose([s.weight for s in pool], self.user_rotation, index, group_index)].name

    @cached_property
    def user_pool(self) -> tuple[Simulator, ...]:
        """The simulators that training distributes over its samples. Empty: only `user_model`."""
        if self.user_model_rotation:
            return tuple(self.simulator(name) for name in self.user_model_rotation)
        return self.user_simulators

    def simulator(self, name: str) -> Simulator:
        """The pool's simulator ``name``. If the pool has none: the model ``name``, with the endpoint of the user_* keys."""
        for simulator in self.user_simulators:
            if simulator.name == name:
                return simulator
        return _simulator_without_entry(name, self.user_base_url, self.user_api_key_var)

    def stand_ins_for(self, name: str, *, evaluation: bool) -> list[str]:
        """The simulators that go on when ``name`` is out: the rest of the pool, from the next one on.

        Empty in evaluation: scores against different simulators cannot be compared.
        """
        names = list(dict.fromkeys(simulator.name for simulator in self.user_pool))
        if evaluation or self.user_failover == "wait" or name not in names:
            return []
        at = names.index(name)
        return names[at + 1 :] + names[:at]


@lru_cache(maxsize=256)
def _simulator_without_entry(model: str, base_url: str | None, api_key_var: str | None) -> Simulator:
    return Simulator(model=model, base_url=base_url, api_key_var=api_key_var)


_resolved: dict[str, Tau2Config] = {}
"""`Tau2Config.resolve`'s sources as text -> what they say. Read it through `resolve` only."""
_RESOLVED_KEPT = 256
