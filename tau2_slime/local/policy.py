"""A policy that plays gold: it reads its position from the token ids and writes the next scripted turn as token ids."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tau2_slime.local.context import ContextReader, ScriptPosition
from tau2_slime.local.gold import ASK_REFERENCE, CaseReference, GoldScript, ScriptTurn
from tau2_slime.local.spelling import Speller, draw
from tau2_slime.tokens.calls.action_text import TextActions

if TYPE_CHECKING:
    from tau2_slime.local.solo import SoloCase
    from tau2_slime.tokens.calls.action_text import ActionFormat
    from tau2_slime.tokens.calls.types import ToolCallParser
    from tau2_slime.tokens.template.chat_template import ChatTemplate
    from tau2_slime.tokens.tokenizer import Tokenizer

_THOUGHT = "The script says what comes next.\n</think>\n\n"
_THOUGHT_ALOUD = "Thought: The script says what comes next.\n"
_CALL_STOPS = ("<|observation|>", "<|call|>")
_TEXT_STOPS = ("<|user|>", "<|return|>")


class GoldPolicy:
    """The next turn for any context of one checkpoint's chat template. Thread-safe; it remembers nothing between calls."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        spelling: float = 0.1,
        mistakes: float = 0.0,
        noise: float = 0.0,
        gives_up: float = 0.0,
        seed: int = 0,
        played: Iterable[tuple[str, str]] = (),
    ) -> None:
        """A policy in the words of the tokenizer's chat template.

        Args:
            tokenizer: has the vocabulary and the chat template.
            spelling: share of tokens that are split in two (see `spelling.Speller`).
            mistakes: share of episodes with one wrong move, at the end.
            noise: share of steps, anywhere, with another move than gold's (see `GoldScript.with_noise`).
            gives_up: share of episodes in which it falls silent at some point, which earns nothing whatever the task.
            seed: decides which tokens and episodes these are.
            played: domains and splits (or task files) of solo episodes; a ticket of theirs is known as one of ``base`` is.

        Raises:
            ValueError: the chat template cannot be used (TemplateError), or its tool-call format is unknown.
        """
        self.template, self.parser = _language(tokenizer)
        self.spelling, self.seed = spelling, seed
        self.mistakes, self.noise, self.gives_up = mistakes, noise, gives_up
        self._reader = ContextReader(self.template)
        self._speller = Speller(tokenizer)
        self._turn_ids = lru_cache(maxsize=8192)(self._spell)
        self._scripts: dict[CaseReference, GoldScript | None] = {}
        self._solo: dict[str, SoloCase] = {}
        self._played = frozenset(played)
        self._lock = threading.Lock()

    def read(self, input_ids: Sequence[int]) -> ScriptPosition:
        """Where in its script the policy is after ``input_ids``."""
        return self._reader.read(input_ids)

    def knows(self, position: ScriptPosition) -> bool:
        """True if the position's task is loaded, so that `continuation` takes a millisecond."""
        if position.reference is not None:
            return position.reference in self._scripts
        return position.ticket is None or position.ticket in self._solo

    def continuation(self, position: ScriptPosition, *, routing_key: str = "") -> list[int]:
        """Token ids of the rest of the turn, its stop token last. ``routing_key`` decides what goes wrong."""
        turn, case = self._due(position, routing_key)
        text = (_THOUGHT if position.thinking else "") + self._text(turn, position.actions)
        is_call = turn.call is not None and position.actions is None
        ids = list(self._turn_ids(text, is_call, f"{self.seed}/{case}/{position.turn}"))
        if not position.begun_text:
            return ids
        # An aborted call left the beginning of this turn: go on after the longest part of it that is there.
        begun = list(position.begun)
        for length in range(min(len(begun), len(ids)), 0, -1):
            if begun[-length:] == ids[:length]:
                return ids[length:]
        return ids

    def _due(self, position: ScriptPosition, routing_key: str) -> tuple[ScriptTurn, str]:
        """The turn at the position, and the case's name."""
        if position.reference is not None:
            script, case, at = self._script(position.reference), str(position.reference), position.turn
            if script is None:
                return ScriptTurn("ask", text=f"I cannot find the case {position.reference}."), case
        elif position.ticket is not None:
            solo = self._solo_case(position.ticket)
            case = solo.name
            if position.turn < len(solo.questions):
                return ScriptTurn("call", solo.questions[position.turn]), case
            script, at = solo.answer(position.heard), position.turn - len(solo.questions)
        else:
            return ScriptTurn("ask", text=ASK_REFERENCE), ""
        script = script.with_noise(self.noise, lambda *what: draw(self.seed, routing_key, case, *what))
        if draw(self.seed, "mistake", routing_key, case) < self.mistakes:
            script = script.with_mistake(int(1000 * draw(self.seed, "which", routing_key, case)))
        silent_from = int(len(script.turns) * draw(self.seed, "when", routing_key, case))
        if draw(self.seed, "gives up", routing_key, case) < self.gives_up and at >= silent_from:
            return ScriptTurn("silence", text=""), case
        return script.turn(at), case

    def _text(self, turn: ScriptTurn, actions: ActionFormat | None) -> str:
        """What a model writes for ``turn``: as the system prompt wants it, or as its chat template does."""
        writer = actions or self.parser
        if turn.call is None:
            text = actions.say(turn.text) if actions is not None and turn.text else turn.text or ""
        else:
            text = writer.format([turn.call]) if writer is not None else ""
            text = _broken(text) if turn.kind == "broken" else text
        return f"{_THOUGHT_ALOUD}{text}" if isinstance(actions, TextActions) and actions.thinks and text else text

    def _spell(self, text: str, is_call: bool, key: str) -> tuple[int, ...]:
        ids = self._speller.respell(self.template.encode(text), self.spelling, key)
        return (*ids, self._stop(_CALL_STOPS if is_call else _TEXT_STOPS))

    def _stop(self, preferred: tuple[str, ...]) -> int:
        """The token with which this model family ends such a turn: the first of ``preferred`` that it has."""
        ends = self.template.stop_ids | set(self.template.closers.values())
        for spelling in preferred:
            token = self.template.token_id(spelling)
            if token is not None and token in ends:
                return token
        return next(iter(self.template.closers.values()))

    def _script(self, reference: CaseReference) -> GoldScript | None:
        """The script of that case; None if the installed τ² has no such task."""
        from tau2_slime.errors import ConfigError
        from tau2_slime.world.domains import find_task

        if reference in self._scripts:
            return self._scripts[reference]
        with self._lock:
            try:
                task = find_task(reference.domain, reference.split, task_id=reference.task_id)
            except ConfigError:
                script = None
            else:
                script = GoldScript.from_task(task)
            self._scripts[reference] = script
        return script

    def _solo_case(self, ticket: str) -> SoloCase:
        from tau2_slime.local.solo import SoloCase

        if ticket not in self._solo:
            with self._lock:
                if ticket not in self._solo:
                    self._solo[ticket] = SoloCase.find(ticket, self._played)
        return self._solo[ticket]


def _language(tokenizer: Tokenizer) -> tuple[ChatTemplate, ToolCallParser | None]:
    """The chat template, and who writes its tool calls; None if it can only be used for actions in plain text.

    Raises:
        ValueError: not even for these.
    """
    from tau2_slime.tokens.calls.registry import detect_parser, get_parser
    from tau2_slime.tokens.template.chat_delta import ChatDelta

    try:
        template = ChatDelta.calibrate(tokenizer).template
        return template, get_parser(detect_parser(template.template_source, template.control_tokens))
    except ValueError as error:  # TemplateError, UnknownToolFormat, ParserUnavailable
        try:
            return ChatDelta.calibrate(tokenizer, text_only=True).template, None
        except ValueError:
            raise error from None


def _broken(call: str) -> str:
    """``call`` with one bracket missing."""
    cut = call.rfind("}") if '"arguments"' in call else call.rfind("</")
    return call[:cut] + call[cut + 1 :]
