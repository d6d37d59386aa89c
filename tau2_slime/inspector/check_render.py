"""Drift, tested on a file: is everything that the policy was shown what the chat template writes for these messages?

The conversation is rendered again, piece by piece, with the checkpoint's own template, and compared id by id; each sampled
turn is decoded and read again, and must say what its message says. Nothing of the sample's numbers is taken on trust.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tau2_slime.inspector.check import Violation
from tau2_slime.inspector.trajectory import Trajectory

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


class NotComparable(Exception):
    """Why an episode cannot be rendered again."""


@dataclass
class Drift:
    """What was compared, over all trajectories."""

    prompts: int = 0
    joins: int = 0
    turns: int = 0
    retokenised_turns: int = 0
    """Turns that a client which tokenises text again would have trained on wrongly: no violation, a measure."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Why trajectories were not compared, and how many."""


def check_render(trajectory: Trajectory, language: CheckpointProfile, drift: Drift) -> list[Violation]:
    """Violations of one trajectory; ``drift`` counts what was compared."""
    try:
        episode = _Episode(trajectory, language)
        found = list(episode.compare(drift))
    except NotComparable as error:
        drift.skipped[str(error)] = drift.skipped.get(str(error), 0) + 1
        return []
    return [Violation(trajectory.name, position, text) for position, text in found]


class _Episode:
    """One conversation, as the policy was shown it."""

    def __init__(self, trajectory: Trajectory, language: CheckpointProfile) -> None:
        from tau2_slime.episode import history

        self.trajectory, self.language = trajectory, language
        if trajectory.ledger is None or not trajectory.tokens:
            raise NotComparable("no tokens")
        if _only_stand_ins(trajectory):
            raise NotComparable("the policy was never asked")
        if not trajectory.messages:
            raise NotComparable("the file keeps no messages")
        try:
            self.messages = history.load_messages(trajectory.messages)
        except Exception as error:  # pydantic's, τ²'s
            raise NotComparable(f"τ² cannot read the messages ({type(error).__name__})") from error
        self.system, self.tools = _agent(trajectory)
        pieces = trajectory.pieces()
        self.turns = trajectory.turns()
        self.prompt = trajectory.tokens[: trajectory.prompt_length]
        self.contexts = [p for p in pieces if p.kind == "context"]
        self.spoken = trajectory.sampled_messages()

    def compare(self, drift: Drift) -> Iterator[tuple[int | None, str]]:
        from tau2_slime.episode.agents import chat_message
        from tau2_slime.episode.history import agent_sees
        from tau2_slime.tokens.template.chat_template import TemplateError

        delta, tokens, spoken = self.language.delta, self.trajectory.tokens, self.spoken
        # A turn that ended the episode without a message (cut, empty) is the last one.
        if not len(self.turns) - 1 <= len(spoken) <= len(self.turns):
            yield None, f"{len(self.turns)} sampled turns, but {len(spoken)} messages of the policy"
            return
        seen = [i for i, message in enumerate(self.messages) if agent_sees(message)]
        chat: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        begin = spoken[0] if spoken else len(self.messages)
        chat += [chat_message(self.messages[i]) for i in seen if i < begin]
        drift.prompts += 1
        try:
            expected = delta.first_prompt(chat, self.tools)
        except TemplateError as error:
            raise NotComparable(f"the template refuses the first prompt: {error}") from error
        yield from _differs(self.prompt, expected, 0, "the first prompt")
        for number, pieces in enumerate(self.turns):
            ids = [token for piece in pieces for token in tokens[piece.start : piece.stop]]
            yield from self._turn(number, ids, pieces[0].start, drift)
            if number >= len(self.contexts):
                return
            context = self.contexts[number]
            if number >= len(spoken):
                yield context.start, "context after a turn that has no message"
                return
            assistant = chat_message(self.messages[spoken[number]])
            end = spoken[number + 1] if number + 1 < len(spoken) else len(self.messages)
            new = [chat_message(self.messages[i]) for i in seen if spoken[number] < i < end]
            try:
                after = delta.between(chat, assistant, new, self.tools).ids
            except TemplateError as error:
                yield context.start, f"the template refuses what was appended here: {error}"
                return
            drift.joins += 1
            # The sampled stop token is the closer that the template's text begins with; else the closer is context.
            wanted = after[1:] if ids and ids[-1] == after[0] else after
            yield from _differs(
                tokens[context.start : context.stop], wanted, context.start, "what was appended after the turn"
            )
            chat += [assistant, *new]

    def _turn(self, number: int, ids: list[int], start: int, drift: Drift) -> Iterator[tuple[int | None, str]]:
        template = self.language.delta.template
        drift.turns += 1
        text = template.decode(ids)
        drift.retokenised_turns += template.encode(text) != ids
        if number >= len(self.spoken):
            return
        said = self.messages[self.spoken[number]]
        visible = ids[:-1] if ids and ids[-1] in self.language.delta.stop_ids else ids
        parsed = self.language.parser.parse(
            template.decode(visible), self.tools, reasoning_open=self.language.delta.report.reasoning_preopened
        )
        calls = [(call.name, call.arguments) for call in said.tool_calls or []]
        again = [(call.name or "unknown", call.arguments) for call in parsed.calls]
        if self.trajectory.agent_type != "solo" and (said.content or "").strip() != (parsed.content or "").strip():
            yield start, f"turn {number + 1} decodes to {_short(parsed.content)}, its message is {_short(said.content)}"
        elif self.trajectory.agent_type != "solo" and calls != again:
            yield start, f"turn {number + 1} decodes to the calls {again}, its message has {calls}"


def _only_stand_ins(trajectory: Trajectory) -> bool:
    """True if the sample's tokens stand for none: slime needs a prompt and a response."""
    metadata = (trajectory.sample or {}).get("metadata")
    tau2 = metadata.get("tau2") if isinstance(metadata, Mapping) else None
    counts = tau2.get("tokens") if isinstance(tau2, Mapping) else None
    return len(trajectory.tokens) == 2 and isinstance(counts, Mapping) and not any(counts.values())


def _agent(trajectory: Trajectory) -> tuple[str, list[dict[str, Any]]]:
    """System prompt and tools of τ²'s own agent for the episode's task."""
    from tau2_slime.errors import ConfigError
    from tau2_slime.world import domains, tau2_compat

    try:
        task = domains.find_task(trajectory.domain, trajectory.task_split, task_id=trajectory.task_id)
        world = domains.World(trajectory.domain, trajectory.task_split, task, solo=trajectory.agent_type == "solo")
        agent = tau2_compat.build_agent(trajectory.agent_type, world.agent_tools, world.policy, task)
    except (ConfigError, ValueError, KeyError) as error:
        raise NotComparable(f"the installed τ² has no such episode: {error}") from error
    return agent.system_prompt, [domains.tool_schema(tool) for tool in agent.tools]


def _differs(ids: Any, wanted: list[int], start: int, what: str) -> Iterator[tuple[int | None, str]]:
    ids = list(ids)
    if ids == wanted:
        return
    at = next((i for i, (a, b) in enumerate(zip(ids, wanted, strict=False)) if a != b), min(len(ids), len(wanted)))
    here = ids[at] if at < len(ids) else "nothing"
    there = wanted[at] if at < len(wanted) else "nothing"
    yield start + at, f"{what} is not what the chat template writes: {here} here, {there} in a fresh render"


def _short(text: str | None) -> str:
    return repr(text if text is None or len(text) < 60 else text[:57] + "...")
