"""Drift, tested on a file: is everything that the policy was shown what the chat template writes for these messages?

The conversation is rendered again, piece by piece, with the checkpoint's own template, and compared id by id. Each sampled
turn is decoded and parsed again, and must say what its message says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.check import Findings, Violation
from tau2_slime.inspector.shown import NotComparable, ShownConversation, only_placeholders
from tau2_slime.inspector.trajectory import TokenSpan, Trajectory, common_length

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile
    from tau2_slime.tokens.calls.action_text import ActionFormat


@dataclass
class DriftCounts:
    """What was compared, over all trajectories."""

    prompts: int = 0
    joins: int = 0
    """Texts between two turns that were rendered again."""
    turns: int = 0
    """Sampled turns that were decoded and parsed again."""
    retokenised_turns: int = 0
    """Of these: those whose text becomes other tokens if it is tokenised again. That is not a violation."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Why trajectories were not compared, and how many."""


def check_drift(trajectory: Trajectory, language: CheckpointProfile, counts: DriftCounts) -> list[Violation]:
    """Violations of one trajectory; ``counts`` is added to."""
    try:
        found = list(_Episode(trajectory, language).compare(counts))
    except NotComparable as error:
        counts.skipped[str(error)] = counts.skipped.get(str(error), 0) + 1
        return []
    return [Violation(trajectory.name, position, text) for position, text in found]


class _Episode:
    """One conversation, as the policy was shown it."""

    def __init__(self, trajectory: Trajectory, language: CheckpointProfile) -> None:
        self.trajectory, self.language = trajectory, language
        if trajectory.ledger is None or not trajectory.tokens:
            raise NotComparable("no tokens")
        if only_placeholders(trajectory):
            raise NotComparable("the policy was never asked")
        self.shown = ShownConversation.of(trajectory)
        self.tools = self.shown.tools
        self.actions = _actions(trajectory)
        self.offered = self.tools if self.actions is None else []
        self.turns = trajectory.turns()
        self.contexts = [span for span in trajectory.spans() if span.kind == "context"]

    def compare(self, counts: DriftCounts) -> Findings:
        from tau2_slime.tokens.template.chat_template import TemplateError

        delta, shown, sampled = self.language.delta, self.shown, self.shown.sampled
        # A turn that ended the episode without a message (cut, empty) is the last one.
        if not len(self.turns) - 1 <= len(sampled) <= len(self.turns):
            yield None, f"{len(self.turns)} sampled turns, but {len(sampled)} messages of the policy"
            return
        end = len(shown.messages)
        opening = [{"role": "system", "content": shown.system}, *shown.chat(0, sampled[0] if sampled else end)]
        chat = self._in_format(opening)
        chat[0] = {**chat[0], "content": chat[0]["content"] + self.trajectory.examples}
        counts.prompts += 1
        try:
            expected = delta.first_prompt(chat, self.offered)
        except TemplateError as error:
            raise NotComparable(f"the template refuses the first prompt: {error}") from error
        prompt = TokenSpan("prompt", 0, self.trajectory.prompt_length)
        yield from _difference(self._ids(prompt), expected, 0, "the first prompt")
        for number, spans in enumerate(self.turns):
            ids = [token for span in spans for token in self._ids(span)]
            yield from self._check_turn(number, ids, spans[0].start, counts)
            if number >= len(self.contexts):
                return
            context = self.contexts[number]
            if number >= len(sampled):
                yield context.start, "context after a turn that has no message"
                return
            at, following = sampled[number], sampled[number + 1] if number + 1 < len(sampled) else end
            (assistant,) = self._in_format(shown.chat(at, at + 1))
            new = self._in_format(shown.chat(at + 1, following))
            try:
                after = delta.between(chat, assistant, new, self.offered).ids
            except TemplateError as error:
                yield context.start, f"the template refuses what was appended here: {error}"
                return
            counts.joins += 1
            # The sampled stop token is the closer that the template's text begins with; else the closer is context.
            wanted = after[1:] if ids and ids[-1] == after[0] else after
            yield from _difference(self._ids(context), wanted, context.start, "what was appended after the turn")
            chat += [assistant, *new]

    def _in_format(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """``messages`` in the form in which the policy acted."""
        from tau2_slime.tokens.calls.action_text import in_format

        return in_format(self.actions, messages, self.tools)

    def _ids(self, span: TokenSpan) -> list[int]:
        return list(self.trajectory.tokens[span.start : span.stop])

    def _check_turn(self, number: int, ids: list[int], start: int, counts: DriftCounts) -> Findings:
        """The turn's tokens, read again, against its message."""
        template = self.language.delta.template
        counts.turns += 1
        counts.retokenised_turns += template.encode(template.decode(ids)) != ids
        if number >= len(self.shown.sampled) or self.trajectory.agent_type == "solo":
            return  # in solo play τ² turns a call of `done` into another message
        message = self.shown.messages[self.shown.sampled[number]]
        visible = ids[:-1] if ids and ids[-1] in self.language.delta.stop_ids else ids
        parsed = (self.actions or self.language.parser).parse(
            template.decode(visible), self.tools, reasoning_open=self.language.delta.report.reasoning_preopened
        )
        calls = [(call.name, call.arguments) for call in message.tool_calls or []]
        again = [(call.name or "unknown", call.arguments) for call in parsed.calls]
        said, decoded = message.content, parsed.content
        if (said or "").strip() != (decoded or "").strip():
            yield start, f"turn {number + 1} decodes to {_shortened(decoded)}, its message is {_shortened(said)}"
        elif calls != again:
            yield start, f"turn {number + 1} decodes to the calls {again}, its message has {calls}"


def _actions(trajectory: Trajectory) -> ActionFormat | None:
    """The format of the episode's actions. A class of somebody's own is not loaded because a file names it."""
    from tau2_slime.tokens.calls.action_text import FORMATS, NATIVE, action_format

    if trajectory.agent_strategy not in (NATIVE, *FORMATS):
        raise NotComparable(f"the agent acted in a format of its own, {trajectory.agent_strategy}")
    return action_format(trajectory.agent_strategy, solo=trajectory.agent_type == "solo")


def _difference(ids: Sequence[int], wanted: Sequence[int], start: int, what: str) -> Iterator[tuple[int, str]]:
    """The first place where ``ids`` are not ``wanted``; ``start`` is the position of the first of them."""
    at = common_length(ids, wanted)
    if at == len(ids) == len(wanted):
        return
    here = ids[at] if at < len(ids) else "nothing"
    there = wanted[at] if at < len(wanted) else "nothing"
    yield start + at, f"{what} is not what the chat template writes: {here} here, {there} in a fresh render"


def _shortened(text: str | None) -> str:
    return repr(text if text is None or len(text) < 60 else text[:57] + "...")
