"""One finished episode: what was said, every token of it, how it ended and what it earned."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.episode.telemetry import telemetry
from tau2_slime.outcome import Blame, Status, Termination
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
