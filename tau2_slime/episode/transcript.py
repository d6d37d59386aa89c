"""One episode's conversation as whoever speaks for the agent sees it: chat messages, and counters of what they cost.

This is enough for a model that answers in messages: behind an API (`evaluation.runner.api_agent`), or in another framework's
hands (`backends.turns`). `policy.sampling.TokenTranscript` adds every token.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tau2_slime.errors import CannotResume, Tau2SlimeError

if TYPE_CHECKING:
    from tau2_slime.outcome import Termination
    from tau2_slime.tokens.calls.action_text import ActionFormat
    from tau2_slime.tokens.calls.types import Call, ParsedTurn, Tool
    from tau2_slime.tokens.ledger import TokenLedger

# Counters that an interrupted episode takes along.
_CARRIED = (
    *("turns", "junctions", "generations", "generation_time"),
    *("resumed_aborts", "engine_retries", "neutralised", "round_trip_failures"),
)


class PolicyStopped(Tau2SlimeError):
    """The policy cannot or must not go on: its turn ended the episode as ``termination``."""

    def __init__(self, termination: Termination, detail: str) -> None:
        super().__init__(detail)
        self.termination = termination


class Speaker(Protocol):
    """Where an agent's words come from."""

    def transcript(self, tools: list[Tool]) -> Transcript:
        """The empty transcript of one episode. ``tools``: OpenAI function schemas."""


@dataclass(eq=False)
class Transcript:
    """One episode's conversation; a subclass says where the turns come from."""

    tools: list[Tool]
    """OpenAI function schemas of the tools that the model may call."""
    actions: ActionFormat | None = None
    """How the model acts in plain text; None: with the tool calls of its chat template or server."""
    chat: list[dict[str, Any]] = field(default_factory=list)
    """The messages that the model has been shown, and its own turns as they were understood."""
    ledger: TokenLedger | None = None
    """Every token, where this transcript keeps them."""
    generations: list[dict[str, Any]] = field(default_factory=list)
    """The server's meta_info of every call (prompt_tokens, completion_tokens and more), without per-token lists."""
    turns: int = 0
    junctions: dict[str, int] = field(default_factory=dict)
    resumed_aborts: int = 0
    engine_retries: int = 0
    neutralised: int = 0
    round_trip_failures: int = 0
    generation_time: float = 0.0
    """Seconds."""
    aborted: Callable[[], bool] = lambda: False
    measures_drift: bool = False
    """True if `drift` is to be asked when the episode is over."""

    @property
    def parallel_calls(self) -> bool:
        """True if one turn may hold several tool calls."""
        return True

    @property
    def offered(self) -> list[Tool]:
        """The tools as the chat template or the server gets them: none where the system prompt tells them."""
        return self.tools if self.actions is None else []

    def spell(self, calls: list[Call]) -> str:
        """``calls`` as this model writes them, for examples; JSON where its server has the only say."""
        if self.actions is not None:
            return self.actions.format(calls)
        return "\n".join(json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls)

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        """The model's reply to ``messages``, parsed. The caller appends the reply to `chat` as it understood it.

        Raises:
            PolicyStopped: it cannot go on (context, length).
            EngineError: it cannot be asked.
        """
        raise NotImplementedError

    def drift(self) -> dict[str, int] | None:
        """The counts of the drift meter (`tokens.template.retokenisation`)."""
        return None

    # ---- interrupted and resumed -------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What `resume` needs beside the ledger and the messages, as plain data."""
        return {name: getattr(self, name) for name in _CARRIED}

    def resume(self, state: Mapping[str, Any], ledger: TokenLedger | None) -> None:
        """Take up the ``ledger`` of an earlier part of the same episode; `adopt` brings the messages.

        Raises:
            CannotResume: the state is damaged.
        """
        try:
            for name in _CARRIED:
                setattr(self, name, copy.copy(state[name]))
        except (KeyError, TypeError) as error:
            raise CannotResume(f"the saved transcript is damaged: {type(error).__name__}: {error}") from error
        self.ledger = ledger

    def adopt(self, chat: list[dict[str, Any]]) -> None:
        """``chat``: the messages that the resumed ledger stands for, without those that `turn` brings again."""
        self.chat = list(chat)
