"""The first prompt, and what to append to a trajectory between two generate calls.

All text comes from the model's own chat template, and only new text is encoded. A `Delta` begins with the token that closes
the assistant's turn, so that it serves every way in which a generate call can end (`ChatDelta.join`).
"""

from __future__ import annotations

import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tau2_slime.tokens.ledger import TokenLedger
from tau2_slime.tokens.template import calibration
from tau2_slime.tokens.template.calibration_cases import DUMMY_BASE, DUMMY_TOOLS, NATIVE, TEXT_ONLY
from tau2_slime.tokens.template.calibration_report import TemplateReport
from tau2_slime.tokens.template.chat_template import SENTINEL, ChatMessage, ChatTemplate, TemplateError, Tools
from tau2_slime.tokens.template.control_tokens import ControlTokenEscaper

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

__all__ = ["ChatDelta", "Delta", "Junction", "TemplateError", "TemplateReport"]

_PREFIX_CACHE_SIZE = 64
"""Texts of system prompt, tools and greeting whose ids are kept; a run has one for each domain and kind of agent."""
_DELTA_CACHE_SIZE, _LONGEST_KEPT = 2048, 8192
"""Deltas that are kept, and the characters of the longest: at most some 20 MB, in a run some 3."""


@dataclass(frozen=True)
class Delta:
    """Text that the template writes, and its ids."""

    text: str
    ids: list[int]
    """Shape (n,)."""
    escaped: int = 0
    """How many control tokens the environment's text spelled; they were encoded as ordinary text."""
    round_trip_ok: bool = True
    """The ids decode to the text (compared after NFC)."""


@dataclass(frozen=True)
class Junction:
    """How a delta was joined to the sampled turn."""

    kind: Literal["closed", "replaced", "synthesised", "ended"]
    """`closed`: the model sampled the template's closer. `replaced`: it sampled another stop token, which was popped.
    `synthesised`: it sampled none, and the closer is context. `ended`: nothing was appended; the episode is over."""
    appended: int
    """Number of context tokens appended."""
    popped: int | None = None
    """Id of the stop token that was popped."""


class ChatDelta:
    """First prompts and deltas for one calibrated (tokenizer, chat template, template arguments).

    Make one with `calibrate`; all conversations share it. Several threads may use it at once.
    """

    def __init__(self, template: ChatTemplate, report: TemplateReport) -> None:
        self.template = template
        self.report = report
        self.stop_ids = template.stop_ids
        """Ids on which the server has to stop: send them as ``stop_token_ids``."""
        self._closer_ids = frozenset(template.closers.values())
        self._prefixes: OrderedDict[str, list[int] | None] = OrderedDict()
        self._deltas: OrderedDict[str, Delta] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def calibrate(
        cls,
        tokenizer: Tokenizer,
        *,
        template_kwargs: Mapping[str, object] | None = None,
        generation_stop_ids: Iterable[int] = (),
        text_only: bool = False,
    ) -> ChatDelta:
        """Prove the template usable, in 25 to 75 ms; a second call with equal arguments returns the same object.

        Args:
            tokenizer: the checkpoint's, with its chat template.
            template_kwargs: the user's arguments of the template, for example ``{"enable_thinking": False}``.
            generation_stop_ids: the ``eos_token_id`` list of the checkpoint's generation_config.
            text_only: prove it for actions in plain text, without tools, instead of for the template's own tool calls.

        Raises:
            TemplateError: the template cannot be used token-exactly; the error says why, and what to do.
        """
        key = calibration.cache_key(tokenizer, template_kwargs, generation_stop_ids, text_only)
        with _calibrating:
            cached = _calibrated.get(key)
            if cached is None:
                template = ChatTemplate(tokenizer, template_kwargs, generation_stop_ids)
                cached = _calibrated[key] = cls(
                    template, calibration.calibrate(template, TEXT_ONLY if text_only else NATIVE)
                )
                while len(_calibrated) > _CALIBRATION_CACHE_SIZE:
                    _calibrated.popitem(last=False)
            return cached

    # --- the first prompt

    def first_prompt(self, messages: Sequence[ChatMessage], tools: Tools = None) -> list[int]:
        """Token ids of the prompt of the first generate call, shape (P,): `first_prompt_delta(...).ids`."""
        return self.first_prompt_delta(messages, tools).ids

    def knows_beginning(self, messages: Sequence[ChatMessage]) -> bool:
        """True if the system prompt of `messages` is encoded already: their first prompt takes half a millisecond."""
        begin = messages[0].get("content") if messages else None
        with self._lock:
            return isinstance(begin, str) and any(ids and begin in prefix for prefix, ids in self._prefixes.items())

    def first_prompt_delta(self, messages: Sequence[ChatMessage], tools: Tools = None) -> Delta:
        """The prompt of the first generate call, with its text.

        What stands before the first user message (system prompt, tools, greeting) is encoded once for each distinct text.
        Control tokens that user and tool messages spell are escaped. The system prompt and the tools are the operator's,
        and stay as the template writes them.

        Raises:
            TemplateError: the template refuses the messages.
        """
        escaper = ControlTokenEscaper(self.template)
        safe = [
            escaper.escape_fields(message) if message.get("role") in ("user", "tool") else message
            for message in messages
        ]
        text = self.template.render(safe, tools)
        prefix, ids = self._prefix(text, safe, tools, escaper)
        rest = self._delta(text[len(prefix) :], escaper)
        return replace(rest, text=prefix + rest.text, ids=ids + rest.ids)

    def _prefix(
        self, text: str, messages: Sequence[ChatMessage], tools: Tools, escaper: ControlTokenEscaper
    ) -> tuple[str, list[int]]:
        """(the part of `text` before the first user message, its ids); ("", []) where it has no ids of its own.

        It ends before an added token, because nothing merges with one.
        """
        with self._lock:
            begins = [prefix for prefix in self._prefixes if text.startswith(prefix)]
            if begins:
                prefix = max(begins, key=len)
                self._prefixes.move_to_end(prefix)
                ids = self._prefixes[prefix]
                return ("", []) if ids is None else (prefix, ids)
        first_user = next((i for i, message in enumerate(messages) if message.get("role") == "user"), None)
        pattern = self.template.control_pattern
        if first_user is None or pattern is None:
            return "", []
        probe = list(messages)
        probe[first_user] = {**messages[first_user], "content": SENTINEL}
        head = self.template.render(probe, tools).split(SENTINEL)[0]
        starts = [match.start() for match in pattern.finditer(head)]
        prefix = head[: starts[-1]] if starts else ""
        if not prefix or not text.startswith(prefix):
            return "", []
        ids = self._keep_prefix(prefix, text, escaper)
        return ("", []) if ids is None else (prefix, ids)

    def _keep_prefix(self, prefix: str, text: str, escaper: ControlTokenEscaper) -> list[int] | None:
        """Ids of `prefix`; None when they do not decode to it, or when `prefix` has other ids before the rest of `text`.

        Both are checked once for each prefix. (One with marks of `escaper` has other ids.)
        """
        alone = self._delta(prefix, ControlTokenEscaper(self.template))
        _, whole = escaper.encode(text, self.template.encode)
        _, rest = escaper.encode(text[len(prefix) :], self.template.encode)
        ids = alone.ids if alone.round_trip_ok and whole == alone.ids + rest else None
        with self._lock:
            self._prefixes[prefix] = ids
            while len(self._prefixes) > _PREFIX_CACHE_SIZE:
                self._prefixes.popitem(last=False)
        return ids

    # --- between two generate calls

    def between(
        self,
        history: Sequence[ChatMessage],
        assistant: ChatMessage,
        new_messages: Sequence[ChatMessage],
        tools: Tools = None,
        *,
        real: bool = False,
    ) -> Delta:
        """What the template writes after `assistant`: its closer, `new_messages`, the generation prompt.

        Only the delta is encoded, however long the conversation is.

        Args:
            history: what came before `assistant`.
            assistant: the turn that was sampled.
            new_messages: what the environment or the user says to it.
            tools: as in the first prompt.
            real: render the real history and tools, also where calibration found that a dummy gives the same delta.

        Raises:
            TemplateError: the template refuses the messages, or writes no closer.
            ValueError: ``new_messages`` is empty, or one of them is an assistant's.
        """
        if self.report.dummy_base_ok and not real:
            history, tools = DUMMY_BASE, DUMMY_TOOLS if tools else None
        escaper = ControlTokenEscaper(self.template)
        rendered = self.template.after(history, assistant, new_messages, tools, escaper)
        known = self._deltas.get(rendered)  # the samples of a group hear the same
        if known is not None:
            return known
        delta = self._delta(rendered, escaper)
        if not delta.ids or delta.ids[0] not in self._closer_ids:
            raise TemplateError("no-closer", f"the delta {delta.text[:80]!r} does not begin with the id of a closer")
        if not escaper.count and len(rendered) < _LONGEST_KEPT:  # what a mark stands for is another thing each time
            with self._lock:
                self._deltas[rendered] = delta
                while len(self._deltas) > _DELTA_CACHE_SIZE:
                    self._deltas.popitem(last=False)
        return delta

    def _delta(self, rendered: str, escaper: ControlTokenEscaper) -> Delta:
        text, ids = escaper.encode(rendered, self.template.encode)
        back = self.template.decode(ids)
        same = back == text or unicodedata.normalize("NFC", back) == unicodedata.normalize("NFC", text)
        return Delta(text, ids, escaper.count, same)

    # --- joining

    def join(
        self,
        ledger: TokenLedger,
        delta: Delta,
        *,
        finish: Literal["stop", "length", "abort"],
        stop_mismatch: Literal["replace", "end"] = "replace",
    ) -> Junction:
        """Append `delta` to a ledger that ends in the sampled turn.

        What happens depends on how the turn ended:

        * The template's closer was sampled: it stays, and the rest of the delta follows. (GLM's role marker likewise.)
        * Another stop token was sampled: `stop_mismatch` pops it and appends the whole delta, or ends.
        * No stop token was sampled (a length limit or a stop string cut the turn): the whole delta follows, its closer as
          context.
        * The turn was aborted: nothing is appended.
        """
        last = ledger.tokens[-1] if ledger.last_is_sampled else None
        if finish == "abort":
            return Junction("ended", 0)
        stopped = last is not None and (last in self.stop_ids or (finish == "stop" and last in self._closer_ids))
        if stopped and last == delta.ids[0]:
            ledger.append_context(delta.ids[1:])
            return Junction("closed", len(delta.ids) - 1)
        if stopped:
            if stop_mismatch == "end":
                return Junction("ended", 0)
            popped = ledger.pop_stop()
            ledger.append_context(delta.ids)
            return Junction("replaced", len(delta.ids), popped)
        ledger.append_context(delta.ids)
        return Junction("synthesised", len(delta.ids))


_calibrated: OrderedDict[calibration.CacheKey, ChatDelta] = OrderedDict()
_calibrating = threading.Lock()
_CALIBRATION_CACHE_SIZE = 16
