"""The policy's side of one episode in tokens: what it was shown and what it sampled, in one ledger.

A `Policy` says how to sample. A `TokenTranscript` is one episode's conversation as the chat template sees it, kept in step
with its ledger. Both know chat messages and tokens; `episode.agents` knows what a reply means.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tau2_slime.episode.transcript import PolicyStopped, Transcript
from tau2_slime.errors import CannotResume, ConfigError, EngineError, EngineUnavailable, EpisodeAborted
from tau2_slime.outcome import Termination
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.runtime.loops import offload
from tau2_slime.tokens.engine import Completion
from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.replay import NOTHING, ReplaySpec
from tau2_slime.tokens.template import retokenisation
from tau2_slime.tokens.template.chat_template import TemplateError

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.types import Call, ParsedTurn, Tool, ToolCallParser
    from tau2_slime.tokens.engine import SglangEngine
    from tau2_slime.tokens.template.chat_delta import ChatDelta, Delta

# A worker that updates its weights answers "aborted" until it is done; asking it more often helps nobody.
_RESUME_PAUSE = 0.2
_MAX_EMPTY_ABORTS = 3000
# Characters of new messages from which on they are encoded in a thread: some 10 ms of work.
_LONG = 20_000


def _short(messages: Sequence[Mapping[str, Any]]) -> bool:
    return sum([len(message["content"] or "") for message in messages]) < _LONG


@dataclass
class Policy:
    """How to turn a conversation into sampled tokens, for one episode."""

    delta: ChatDelta
    parser: ToolCallParser
    engine: SglangEngine
    sampling_params: Mapping[str, Any]
    """slime's sampling parameters. Every call sends them with its own ``max_new_tokens`` and ``stop_token_ids``."""
    max_new_tokens: int
    """Most tokens that one turn may have."""
    context_limit: int | None = None
    """Most tokens that the whole trajectory may have."""
    routing_key: str = ""
    """Calls with the same key go to the same worker, whose prefix cache knows the conversation."""
    stop_mismatch: Literal["replace", "end"] = "replace"
    """What to do after a turn that ended with a stop token other than the chat template's closer."""
    measure_drift: bool = False
    """Compare the sampled tokens with a full re-render when the episode is over (a metric)."""
    trace: Callable[[int], AbstractContextManager[Callable[[Mapping[str, Any]], None]]] | None = None
    """Opens the trace of one call that may sample that many tokens; it yields a function that takes the call's meta_info."""
    replay: ReplaySpec = NOTHING
    """What the trainer will replay beside the tokens."""

    def transcript(self, tools: list[Tool]) -> TokenTranscript:
        """The empty transcript of one episode. ``tools``: OpenAI function schemas."""
        return TokenTranscript(tools, policy=self, measures_drift=self.measure_drift)


@dataclass(eq=False, kw_only=True)
class TokenTranscript(Transcript):
    """One episode's conversation and its tokens: the ledger stands for what is in `chat`."""

    policy: Policy
    joins: list[tuple[int, int]] = field(default_factory=list)
    """Range of chat messages that each context segment of the ledger stands for."""
    turn_start: int | None = None
    """Where the turn that is being sampled begins in the ledger; None between turns."""
    _last_finish: Literal["stop", "length", "abort"] = "stop"
    _first_count: int = 0
    """How many messages of `chat` the first prompt holds."""
    _unverified: bool = False

    @property
    def parallel_calls(self) -> bool:
        return self.policy.delta.report.parallel_ok

    def spell(self, calls: list[Call]) -> str:
        return (self.actions or self.policy.parser).format(calls)

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        await self.feed(messages)
        text, reasoning_open = await self.sample()
        return (self.actions or self.policy.parser).parse(text, self.tools, reasoning_open=reasoning_open)

    async def feed(self, messages: list[dict[str, Any]]) -> None:
        """Put ``messages`` into the ledger, as the chat template writes them.

        The first call renders the first prompt; every later one appends what follows the sampled turn.

        Raises:
            PolicyStopped: no room is left for an answer.
            ConfigError: there never was room, or the chat template refuses the first messages.
            EngineError: the chat template refuses later messages.
        """
        interrupted = self.turn_start is not None  # then the ledger already holds these messages
        if interrupted:
            self.chat += messages
        if self._unverified:
            await self._verify_first_prompt()
        if interrupted:
            return
        delta, limit = self.policy.delta, self.policy.context_limit
        if self.ledger is None:
            self.chat += messages
            addition = await self._first_prompt(self.chat)
            what, size = "the first prompt", len(addition.ids)
        else:
            between = functools.partial(delta.between, self.chat[:-1], self.chat[-1], messages, self.offered)
            try:
                addition = between() if _short(messages) else await self._offloaded(between)
            except TemplateError as error:
                raise EngineError(f"chat template: {error}") from error
            # Of what it adds, at most one token (the closer) is there already.
            what, size = "the conversation", len(self.ledger.tokens) + len(addition.ids) - 1
        if limit is not None and size >= limit:
            too_long = f"{what} has {size} tokens, the context {limit}"
            if self.ledger is None:
                raise ConfigError(f"{too_long}: no answer fits; give the model more context, or leave this task out")
            raise PolicyStopped(Termination.CONTEXT_LENGTH, too_long)
        self.neutralised += addition.escaped
        self.round_trip_failures += not addition.round_trip_ok
        if self.ledger is None:
            self._first_count = len(self.chat)
            self.ledger = TokenLedger(addition.ids, self.policy.replay)
            return
        junction = delta.join(
            self.ledger,
            addition,
            finish=self._last_finish,
            stop_mismatch=self.policy.stop_mismatch,
        )
        self.junctions[junction.kind] = self.junctions.get(junction.kind, 0) + 1
        if junction.kind == "ended":
            raise PolicyStopped(
                Termination.AGENT_ERROR,
                "the turn did not end with the chat template's stop token (stop_mismatch: end)",
            )
        self.joins.append((len(self.chat), len(self.chat) + len(messages)))
        self.chat += messages

    async def sample(self) -> tuple[str, bool]:
        """Sample one assistant turn into the ledger.

        Returns its text without the stop token, and whether the prompt had opened the reasoning.

        Raises:
            PolicyStopped: the turn reached its limit of tokens or the context's.
            EpisodeAborted: slime stopped the rollout.
            EngineError: the server failed.
        """
        assert self.ledger is not None
        policy, ledger = self.policy, self.ledger
        begin = self.turn_start = len(ledger.tokens) if self.turn_start is None else self.turn_start
        limit, budget, clamped = policy.context_limit, policy.max_new_tokens, False
        if limit is not None and limit - begin < budget:
            budget, clamped = limit - begin, True
            if budget < 1:
                raise PolicyStopped(
                    Termination.CONTEXT_LENGTH, f"the conversation has {begin} tokens, the context {limit}"
                )
        empty = 0
        while True:
            left = budget - (len(ledger.tokens) - begin)
            if left < 1:  # an interrupted turn that had used up its tokens when the abort came
                completion = Completion([], [], "length")
                break
            completion = await self._generate(ledger, left)
            if completion.ids:
                ledger.append_sampled(
                    completion.ids, completion.log_probs, completion.weight_version, completion.replay, completion.spans
                )
            if completion.finish != "abort":
                break
            if self.aborted():
                raise EpisodeAborted("aborted while the policy was generating")
            # slime did not abort: the server cut every request short for a weight update. Continue the same turn.
            self.resumed_aborts += 1
            empty = 0 if completion.ids else empty + 1
            if empty > _MAX_EMPTY_ABORTS:
                raise EngineUnavailable("the server keeps aborting the request before it samples a token")
            async with UntilAbort(self.aborted):
                await asyncio.sleep(_RESUME_PAUSE if empty else 0)
        self._last_finish = completion.finish
        self.turn_start = None
        self.turns += 1
        if completion.finish == "length":
            if clamped:
                raise PolicyStopped(Termination.CONTEXT_LENGTH, f"the turn filled the context of {limit}")
            raise PolicyStopped(Termination.RESPONSE_LENGTH, f"the turn reached {policy.max_new_tokens} tokens")
        ids = ledger.tokens[begin:]
        if ids and (ids[-1] in policy.delta.stop_ids or completion.matched == ids[-1]):
            ids = ids[:-1]
        return policy.delta.template.decode(ids), policy.delta.report.reasoning_preopened

    async def _generate(self, ledger: TokenLedger, max_new_tokens: int) -> Completion:
        policy = self.policy
        params = dict(policy.sampling_params)
        params["max_new_tokens"] = max_new_tokens
        if params.get("min_new_tokens"):  # of the whole turn, and never more than there is room for
            sampled = len(ledger.tokens) - (self.turn_start or 0)
            params["min_new_tokens"] = max(0, min(params["min_new_tokens"] - sampled, max_new_tokens))
        params["stop_token_ids"] = sorted({*(params.get("stop_token_ids") or []), *policy.delta.stop_ids})
        started = time.perf_counter()
        try:
            with policy.trace(max_new_tokens) if policy.trace else nullcontext() as tell:
                completion = await policy.engine.generate(
                    ledger.tokens,
                    params,
                    routing_key=policy.routing_key,
                    aborted=self.aborted,
                    replay=ledger.replay.request if ledger.replay is not None else None,
                    written=ledger.written(),
                )
                if tell is not None:
                    tell(completion.meta)
        finally:
            self.generation_time += time.perf_counter() - started
        if completion.finish == "abort" and completion.ids and completion.ids[-1] in params["stop_token_ids"]:
            # sglang looks at a pending abort before it looks at the stop token: this turn was over all the same.
            completion.finish, completion.matched = "stop", completion.ids[-1]
        self.engine_retries += completion.retries
        self.generations.append({k: v for k, v in completion.meta.items() if not isinstance(v, list)})
        return completion

    async def _first_prompt(self, chat: list[dict[str, Any]]) -> Delta:
        delta = self.policy.delta
        try:
            if _short(chat[1:]) and delta.knows_beginning(chat):
                return delta.first_prompt_delta(chat, self.offered)
            return await self._offloaded(functools.partial(delta.first_prompt_delta, list(chat), self.offered))
        except TemplateError as error:
            raise ConfigError(f"the chat template cannot write the first prompt of this task: {error}") from error

    async def _offloaded(self, encode: Callable[[], Delta]) -> Delta:
        async with UntilAbort(self.aborted):
            return await offload(encode)

    # ---- interrupted and resumed -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "turn_start": self.turn_start,
            "first_count": self._first_count,
            "joins": [list(span) for span in self.joins],
            **super().state(),
        }

    def resume(self, state: Mapping[str, Any], ledger: TokenLedger | None) -> None:
        super().resume(state, ledger)
        try:
            self.turn_start = None if state["turn_start"] is None else int(state["turn_start"])
            self._first_count = int(state["first_count"])
            self.joins = [(int(start), int(stop)) for start, stop in state["joins"]]
        except (KeyError, TypeError, ValueError) as error:
            raise CannotResume(f"the saved transcript is damaged: {type(error).__name__}: {error}") from error
        self._unverified = ledger is not None

    async def _verify_first_prompt(self) -> None:
        """Resumed tokens must begin with the first prompt that the same conversation has now.

        Raises:
            CannotResume: the tokenizer, the chat template, the policy text or the tool list has changed.
        """
        assert self.ledger is not None
        first = await self._first_prompt(self.chat[: self._first_count])
        if first.ids != self.ledger.tokens[: self.ledger.prompt_length]:
            raise CannotResume("the first prompt is not the one that the saved tokens begin with")
        self._unverified = False

    def drift(self) -> dict[str, int] | None:
        return (
            None
            if self.ledger is None
            else retokenisation.measure(self.policy.delta, self.ledger, self.chat, self.joins, self.offered)
        )
