"""The policy's side of one episode in tokens: what it was shown, what it sampled, in one ledger.

A `Policy` says how to sample; a `TokenTranscript` is one episode's conversation as the chat template sees it, kept in step
with its ledger. It knows chat messages and tokens; what a reply means is `trainable_agents`' business.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from tau2_slime.episode.transcript import PolicyStopped, Transcript
from tau2_slime.errors import CannotResume, EngineError, EngineUnavailable, EpisodeAborted
from tau2_slime.outcome import Termination
from tau2_slime.runtime.threads import offload, until_abort
from tau2_slime.tokens.engine import Completion
from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.replay import NOTHING, ReplaySpec
from tau2_slime.tokens.template import retokenisation
from tau2_slime.tokens.template.chat_template import TemplateError

if TYPE_CHECKING:
    from tau2_slime.tokens.calls.types import ParsedTurn, Tool, ToolCallParser
    from tau2_slime.tokens.template.chat_delta import ChatDelta, Delta

# A worker that updates its weights answers "aborted" until it is done; asking it more often helps nobody.
_RESUME_PAUSE = 0.2
_MAX_EMPTY_ABORTS = 3000
# Characters of new messages from which on they are encoded in a thread: some 10 ms of work.
_LONG = 20_000


class Engine(Protocol):
    """Continues token ids. `SglangEngine` is one; a Tinker sampling client behind an adapter is another."""

    async def generate(
        self,
        input_ids: list[int],
        sampling_params: dict[str, Any],
        *,
        routing_key: str,
        aborted: Callable[[], bool] = ...,
    ) -> Completion: ...


@dataclass
class Policy:
    """How to turn a conversation into sampled tokens, for one episode."""

    delta: ChatDelta
    parser: ToolCallParser
    engine: Engine
    sampling_params: Mapping[str, Any]
    """slime's sampling parameters; never changed, only ``max_new_tokens`` and ``stop_token_ids`` are set per call."""
    max_new_tokens: int
    """Tokens per turn at most."""
    context_limit: int | None = None
    """Tokens of the whole trajectory at most."""
    routing_key: str = ""
    stop_mismatch: Literal["replace", "end"] = "replace"
    measure_drift: bool = False
    trace: Callable[[int], AbstractContextManager[Callable[[Mapping[str, Any]], None]]] | None = None
    """Opens the trace of one call that may sample that many tokens; what it yields is told the call's meta_info."""
    replay: ReplaySpec = NOTHING
    """What the trainer will replay; then `engine` must take the keyword ``replay``, a `ReplayRequest`."""

    def transcript(self, tools: list[Tool]) -> TokenTranscript:
        """The empty transcript of one episode. ``tools``: OpenAI function schemas."""
        return TokenTranscript(self, tools)


class TokenTranscript(Transcript):
    """One episode's conversation and its tokens: the ledger stands for what is in `chat`."""

    def __init__(self, policy: Policy, tools: list[Tool]) -> None:
        super().__init__(tools)
        self.policy = policy
        self.joins: list[tuple[int, int]] = []
        """Range of chat messages that each context segment of the ledger stands for."""
        self.turn_start: int | None = None
        """Where the turn that is being sampled begins in the ledger; None between turns."""
        self._last_finish: Literal["stop", "length", "abort"] = "stop"
        self._first_count = 0
        """How many messages of `chat` the first prompt holds."""
        self._unverified = False

    @property
    def parallel_calls(self) -> bool:
        return self.policy.delta.report.parallel_ok

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        await self.feed(messages)
        text, reasoning_open = await self.sample()
        return self.policy.parser.parse(text, self.tools, reasoning_open=reasoning_open)

    async def feed(self, messages: list[dict[str, Any]]) -> None:
        """Put ``messages`` into the ledger, in the chat template's own words.

        The first call renders the first prompt; every later one appends what follows the sampled turn.
        """
        delta = self.policy.delta
        if self.turn_start is not None:  # an interrupted turn: the ledger holds what these messages say
            self.chat += messages
            await self._verify()
            return
        await self._verify()
        if self.ledger is None:
            self.chat += messages
            first = await self._first_prompt(self.chat)
            self._must_fit(len(first.ids), "the first prompt")
            self._first_count = len(self.chat)
            self.neutralised += first.escaped
            self.round_trip_failures += not first.round_trip_ok
            self.ledger = TokenLedger(first.ids, self.policy.replay)
        else:
            addition = await self._between(messages)
            # Of what it adds, at most one token (the closer) is there already.
            self._must_fit(len(self.ledger.tokens) + len(addition.ids) - 1, "the conversation")
            self.neutralised += addition.escaped
            self.round_trip_failures += not addition.round_trip_ok
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

    def _must_fit(self, tokens: int, what: str) -> None:
        """Raises PolicyStopped where no room is left to answer: nothing is appended that nobody can go on from, and the
        trainer never sees more tokens than the context has."""
        limit = self.policy.context_limit
        if limit is not None and tokens >= limit:
            raise PolicyStopped(Termination.CONTEXT_LENGTH, f"{what} has {tokens} tokens, the context {limit}")

    async def _between(self, messages: list[dict[str, Any]]) -> Delta:
        between = functools.partial(self.policy.delta.between, self.chat[:-1], self.chat[-1], messages, self.tools)
        try:
            if sum(len(message["content"]) for message in messages) < _LONG:
                return between()
            return cast("Delta", await until_abort(offload(between), self.aborted))
        except TemplateError as error:
            raise EngineError(f"chat template: {error}") from error

    async def sample(self) -> tuple[str, bool]:
        """Sample one assistant turn into the ledger: its text without the stop token, and whether reasoning was open."""
        assert self.ledger is not None
        policy, ledger = self.policy, self.ledger
        begin = self.turn_start = len(ledger.tokens) if self.turn_start is None else self.turn_start
        budget, clamped = policy.max_new_tokens, False
        if policy.context_limit is not None and policy.context_limit - begin < budget:
            budget, clamped = policy.context_limit - begin, True
        if budget < 1:
            self._must_fit(begin, "the conversation")
        empty = 0
        while True:
            left = budget - (len(ledger.tokens) - begin)
            if left < 1:  # an interrupted turn that had used up its tokens when the abort came
                completion = Completion([], [], "length")
                break
            completion = await self._generate(ledger, left)
            if completion.ids:
                ledger.append_sampled(
                    completion.ids, completion.log_probs, completion.weight_version, completion.replay
                )
            if completion.finish != "abort":
                break
            if self.aborted():
                raise EpisodeAborted("aborted while the policy was generating")
            # Not our abort: the server cut every request short for a weight update. Go on with the same turn.
            self.resumed_aborts += 1
            empty = 0 if completion.ids else empty + 1
            if empty > _MAX_EMPTY_ABORTS:
                raise EngineUnavailable("the server keeps aborting the request before it samples a token")
            await until_abort(asyncio.sleep(_RESUME_PAUSE if empty else 0), self.aborted)
        self._last_finish = completion.finish
        self.turn_start = None
        self.turns += 1
        if completion.finish == "length":
            if clamped:
                raise PolicyStopped(
                    Termination.CONTEXT_LENGTH, f"the turn filled the context of {policy.context_limit}"
                )
            raise PolicyStopped(Termination.RESPONSE_LENGTH, f"the turn reached {policy.max_new_tokens} tokens")
        ids = ledger.tokens[begin:]
        if ids and (ids[-1] in policy.delta.stop_ids or completion.matched == ids[-1]):
            ids = ids[:-1]
        return policy.delta.template.decode(ids), policy.delta.report.reasoning_preopened

    async def _generate(self, ledger: TokenLedger, max_new_tokens: int) -> Completion:
        policy = self.policy
        extras = {"replay": ledger.replay.request} if ledger.replay is not None else {}
        params = dict(policy.sampling_params)
        params["max_new_tokens"] = max_new_tokens
        params["stop_token_ids"] = sorted({*(params.get("stop_token_ids") or []), *policy.delta.stop_ids})
        started = time.perf_counter()
        try:
            with policy.trace(max_new_tokens) if policy.trace else nullcontext() as tell:
                completion = await policy.engine.generate(
                    list(ledger.tokens), params, routing_key=policy.routing_key, aborted=self.aborted, **extras
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
        try:
            work = offload(self.policy.delta.first_prompt_delta, list(chat), self.tools)
            first: Delta = await until_abort(work, self.aborted)
        except TemplateError as error:
            raise EngineError(f"chat template: {error}") from error
        return first

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

    async def _verify(self) -> None:
        """Resumed tokens must begin with what the same conversation begins with now.

        Raises:
            CannotResume: another tokenizer, chat template, policy text or tool list than then.
        """
        if not self._unverified or self.ledger is None:
            return
        first = await self._first_prompt(self.chat[: self._first_count])
        if first.ids != self.ledger.tokens[: self.ledger.prompt_length]:
            raise CannotResume("the first prompt is not the one that the saved tokens begin with")
        self._unverified = False

    def drift(self) -> dict[str, int] | None:
        if not self.policy.measure_drift or self.ledger is None:
            return None
        return retokenisation.measure(self.policy.delta, self.ledger, self.chat, self.joins, self.tools)
