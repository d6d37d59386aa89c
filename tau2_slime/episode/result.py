"""One finished episode: what was said, every token of it, how it ended and what it earned."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.outcome import SUCCESS, Blame, Status, Termination
from tau2_slime.policy_rules.check import BROKEN, WRITES
from tau2_slime.runtime.secrets import redact

if TYPE_CHECKING:
    from tau2_slime.tokens.ledger import TokenLedger


@dataclass
class EpisodeStats:
    """Counters of one episode. Times are seconds of wall clock."""

    agent_turns: int = 0
    """Messages that the policy sampled."""
    user_turns: int = 0
    """Messages of the user simulator, its tool calls included."""
    steps: int = 0
    """τ²'s orchestrator steps."""
    agent_errors: int = 0
    user_errors: int = 0
    """Tool results that are errors, by requestor."""
    tool_calls: dict[str, int] = field(default_factory=dict)
    """Parsed calls of the policy by status (ok, invalid_json, unclosed, unknown_tool, bad_arguments)."""
    policy: dict[str, int] = field(default_factory=dict)
    """Of a domain with rules in code: the agent's writes that took effect (``writes``), those that broke its policy
    (``broken``), and these by rule."""
    junctions: dict[str, int] = field(default_factory=dict)
    """How sampled turns were joined to what follows (closed, replaced, synthesised)."""
    resumed_aborts: int = 0
    """Generations that the server aborted and that were continued in place."""
    neutralised: int = 0
    """Spellings of control tokens in environment text that were encoded as ordinary text."""
    round_trip_failures: int = 0
    """Appended texts whose ids do not decode back to the text (after NFC)."""
    drift: dict[str, int] | None = None
    """Of a sampled share of episodes: how far the sampled turns are from what re-tokenising them would give."""
    generation_time: float = 0.0
    user_time: float = 0.0
    total_time: float = 0.0
    user_cost: float = 0.0
    """US dollars, as far as the model's price is known."""
    user_calls: int = 0
    user_retries: int = 0
    user_waited: float = 0.0
    """Of `user_time`: because a simulator's endpoint was out, or between two tries."""
    user_prompt_tokens: int = 0
    user_completion_tokens: int = 0
    user_faults: dict[str, int] = field(default_factory=dict)
    """Calls of the simulator that gave nothing usable, by kind (rate_limit, timeout, ...)."""
    user_played: dict[str, int] = field(default_factory=dict)
    """Messages by the simulator that really wrote them: with `user_failover: next` more than one may have."""
    user_kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    """With a `user_strategy`: calls, tokens, cost and seconds by what was asked for: draft, verdict, reflection."""
    user_unverified: int = 0
    """Messages that the strategy sent although nobody had approved of them."""
    user_flaws: dict[str, int] = field(default_factory=dict)
    """Messages of the simulator that no customer would have sent, by `world.users.quality.Flaw`."""
    seeds: dict[str, int] = field(default_factory=dict)
    """By role: the seed of this attempt, derived from the one in the model's arguments."""
    engine_retries: int = 0
    resumes: int = 0
    """How often this episode was interrupted by the end of a rollout and taken up by a later one."""

    def plain(self) -> dict[str, Any]:
        """A copy as plain data: what `dataclasses.asdict` makes of it, at a tenth of the price."""
        return {name: copy.deepcopy(value) if isinstance(value, dict) else value for name, value in vars(self).items()}


@dataclass
class InteractionResult:
    """A whole trajectory: what was said, every token of it, how it ended and what it earned."""

    domain: str
    task_split: str
    task_id: str
    agent_type: str
    user_model: str
    """Name of the user simulator; empty in solo episodes."""
    termination: Termination
    blame: Blame
    agent_path: str = ""
    """Class that played the agent, if it was not `agents.TrainableLLMAgent` itself."""
    agent_strategy: str = "native"
    """How it acted: the setting of that name."""
    user_strategy: str = "llm"
    """How the user simulator came to its messages: the setting of that name."""
    examples: str = ""
    """The end of the system prompt that told the examples of the setting ``few_shot``."""
    retrieval_variant: str = ""
    """How the agent read the documents, in a domain that has any: the setting of that name."""
    detail: str = ""
    """One line for a human: what went wrong, empty when nothing did."""
    reward: float | None = None
    """τ²'s official reward, 0.0 to 1.0; None if the episode could not be scored (a failure is never a 0)."""
    reward_info: dict[str, Any] | None = None
    """τ²'s `RewardInfo` as plain data."""
    messages: list[Any] = field(default_factory=list)
    """τ²'s messages in order (tool results one by one)."""
    rejected_calls: dict[int, list[int]] = field(default_factory=dict)
    """Message index -> positions of calls that were answered without reaching the environment (malformed, unsafe)."""
    ledger: TokenLedger | None = None
    """Every token; None if the policy was never asked."""
    generations: list[dict[str, Any]] = field(default_factory=list)
    """The server's meta_info of every call, without its per-token lists."""
    earlier_generations: int = 0
    """How many of `generations` an earlier rollout made."""
    saved: dict[str, Any] | None = None
    """Of an aborted episode: what `resume` needs to take it up again, beside the tokens."""
    restarted: str = ""
    """Why an interrupted episode was started over instead of being taken up again; empty if it was not."""
    stats: EpisodeStats = field(default_factory=EpisodeStats)
    custom_metrics: dict[str, float] = field(default_factory=dict)
    """The numbers of the run's own metrics (``tau2: {metrics: [...]}``), by name."""
    reward_parts: dict[str, float] = field(default_factory=dict)
    """Training only: the values, 0.0 to 1.0, of the run's own reward parts, by dotted path."""

    @property
    def telemetry(self) -> dict[str, float]:
        """Why the episode failed, counted (`episode.telemetry`), with the run's own numbers as ``custom/<name>`` and
        ``reward_part/<dotted path>``; ``policy/compliance``, the share of the agent's writes that break no rule in code."""
        writes = self.stats.policy.get(WRITES, 0)
        return {
            **telemetry(self.messages, self.reward_info, self.generations),
            **({"policy/compliance": 1 - self.stats.policy.get(BROKEN, 0) / writes} if writes else {}),
            **{f"custom/{name}": value for name, value in self.custom_metrics.items()},
            **{f"reward_part/{path}": value for path, value in self.reward_parts.items()},
        }

    @property
    def status(self) -> Status:
        if self.termination is Termination.ABORTED:
            return Status.ABORTED
        if self.blame is Blame.LIMIT:
            return Status.TRUNCATED
        if self.blame is Blame.AGENT and self.reward is not None:
            return Status.COMPLETED
        return Status.FAILED

    @property
    def trainable(self) -> bool:
        """True if the agent alone is responsible for what the trajectory holds."""
        return self.status in (Status.COMPLETED, Status.TRUNCATED)

    def to_dict(self, *, tokens: bool = True) -> dict[str, Any]:
        """Plain data for a trajectory file; ``tokens`` adds the ledger."""
        out: dict[str, Any] = {
            "domain": self.domain,
            "task_split": self.task_split,
            "task_id": self.task_id,
            "agent_type": self.agent_type,
            "agent_path": self.agent_path,
            "agent_strategy": self.agent_strategy,
            "user_model": self.user_model,
            "user_strategy": self.user_strategy,
            "status": str(self.status),
            "termination": str(self.termination),
            "blame": str(self.blame),
            "detail": self.detail,
            "reward": self.reward,
            "reward_info": self.reward_info,
            "stats": self.stats.plain(),
            "messages": [m.model_dump(mode="json", exclude_none=True, exclude={"raw_data"}) for m in self.messages],
            "rejected_calls": self.rejected_calls,
            "generations": self.generations,
            "telemetry": self.telemetry,
        }
        if self.examples:
            out["examples"] = self.examples
        if self.retrieval_variant:
            out["retrieval_variant"] = self.retrieval_variant
        if tokens and self.ledger is not None:
            out["ledger"] = self.ledger.to_dict()
        return out

    def to_json(self, *, tokens: bool = True) -> str:
        return json.dumps(self.to_dict(tokens=tokens), ensure_ascii=False, default=str)


def failed_result(
    error: str, *, termination: Termination = Termination.INFRASTRUCTURE_ERROR, **known: Any
) -> InteractionResult:
    """The result of an episode that never began."""
    facts: dict[str, Any] = {"domain": "", "task_split": "", "task_id": "", "agent_type": "", "user_model": "", **known}
    return InteractionResult(termination=termination, blame=Blame.INFRASTRUCTURE, detail=redact(error), **facts)


TRANSFER = "transfer_to_human_agents"
"""The tool of airline and retail that gives the user to somebody else."""
RECITED = 200
"""Different numbers that no answer needs: an agent that says so many may be paid for one that τ² looks for."""

_CHECKS = {
    "actions": ("action_checks", "action_match"),
    "env_assertions": ("env_assertions", "met"),
    "communicate": ("communicate_checks", "met"),
    "nl_assertions": ("nl_assertions", "met"),
}


@dataclass(frozen=True)
class Call:
    """One call of the agent and its answer."""

    name: str
    arguments: str
    """JSON with sorted keys."""
    answer: str
    error: bool


def calls_of(messages: Iterable[Any]) -> list[Call]:
    """The agent's calls in τ²'s messages (objects or plain data), each with its result."""
    plain = [message if isinstance(message, Mapping) else message.__dict__ for message in messages]
    answers: dict[int, Mapping[str, Any]] = {}
    asked: list[tuple[str, str]] = []
    waiting: list[int | None] = []
    for message in plain:
        if message.get("role") == "tool":
            number = waiting.pop(0) if waiting else None
            if number is not None:
                answers[number] = message
            continue
        waiting = []
        for call in message.get("tool_calls") or []:
            data = call if isinstance(call, Mapping) else call.__dict__
            mine = message.get("role") == "assistant"
            waiting.append(len(asked) if mine else None)
            if mine:
                text = json.dumps(data.get("arguments"), sort_keys=True, default=str)
                asked.append((str(data.get("name")), text))
    empty: dict[str, Any] = {}
    return [
        Call(name, arguments, str(answers.get(i, empty).get("content") or ""), bool(answers.get(i, empty).get("error")))
        for i, (name, arguments) in enumerate(asked)
    ]


def telemetry(
    messages: Iterable[Any], reward_info: Mapping[str, Any] | None, generations: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Why an episode failed, counted: the same names in the metrics, the rollout's report and the inspector.

    * ``tool/<name>/calls``, ``tool/<name>/errors``: the agent's calls of a tool, and how many were answered by an error;
    * ``checks/<kind>``: share of τ²'s own checks that were met (``db``, ``actions``, ``env_assertions``, ``communicate``,
      ``nl_assertions``): compliance with the policy, where τ² can tell it;
    * ``gold/done``: share of the gold actions that were called, also where the call failed (τ² compares calls, not effects),
      and ``gold/first_divergence``: position, from 0, of the first that was not called (missing if all were);
    * ``loops``: calls that were made with the same arguments, and answered the same, at least twice before;
    * ``repeated_errors``: errors that the same tool had given in the same words before;
    * ``cut_turns``: turns of the policy that ended at a length limit;
    * ``unearned/nothing``, ``unearned/transfer``, ``unearned/recitation``, of paid episodes only: 1 if the agent called no
      tool, did nothing but transfer the user, or said `RECITED` numbers or more. τ² pays for each in some tasks.
    """
    messages = list(messages)
    calls = calls_of(messages)
    out: dict[str, float] = {}
    for call in calls:
        out[f"tool/{call.name}/calls"] = out.get(f"tool/{call.name}/calls", 0.0) + 1
        if call.error:
            out[f"tool/{call.name}/errors"] = out.get(f"tool/{call.name}/errors", 0.0) + 1
    out["loops"] = float(sum(max(0, times - 2) for times in Counter(calls).values()))
    errors = Counter((call.name, call.answer) for call in calls if call.error)
    out["repeated_errors"] = float(sum(times - 1 for times in errors.values()))
    ends = [meta.get("finish_reason") for meta in generations]
    out["cut_turns"] = float(sum((end.get("type") if isinstance(end, Mapping) else end) == "length" for end in ends))
    out.update(_checks(reward_info or {}))
    if reward_info is not None and (reward_info.get("reward") or 0.0) >= SUCCESS:
        plain = [message if isinstance(message, Mapping) else message.__dict__ for message in messages]
        said = " ".join(str(message.get("content") or "") for message in plain if message.get("role") == "assistant")
        out["unearned/nothing"] = float(not calls)
        out["unearned/transfer"] = float({call.name for call in calls} == {TRANSFER})
        out["unearned/recitation"] = float(len(set(re.findall(r"\d+", said))) >= RECITED)
    return out


def _checks(reward_info: Mapping[str, Any]) -> dict[str, float]:
    out: dict[str, float] = {}
    database = reward_info.get("db_check")
    if isinstance(database, Mapping):
        out["checks/db"] = float(bool(database.get("db_match")))
    for kind, (name, met) in _CHECKS.items():
        found = [bool(check.get(met)) for check in reward_info.get(name) or [] if isinstance(check, Mapping)]
        if found:
            out[f"checks/{kind}"] = sum(found) / len(found)
        if found and kind == "actions":
            out["gold/done"] = sum(found) / len(found)
            if not all(found):
                out["gold/first_divergence"] = float(found.index(False))
    return out
