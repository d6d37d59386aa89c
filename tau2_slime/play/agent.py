"""The person plays the agent: they read what a model would be shown, and type what it would say or call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tau2_slime.episode.transcript import Transcript
from tau2_slime.local.person import Part
from tau2_slime.runtime.abort import UntilAbort
from tau2_slime.tokens.calls.types import ParsedCall, ParsedTurn, Tool

if TYPE_CHECKING:
    from tau2_slime.local.person import Person
    from tau2_slime.world.types import Task


class PersonSpeaker:
    """The `transcript.Speaker` of one episode."""

    def __init__(self, person: Person, domain: str, task: Task, *, solo: bool = False) -> None:
        self.person, self.domain, self.task, self.solo = person, domain, task, solo

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _PersonTranscript(self, tools)


class _PersonTranscript(Transcript):
    def __init__(self, speaker: PersonSpeaker, tools: list[Tool]) -> None:
        super().__init__(tools)
        self._speaker, self._seated = speaker, False

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        person = self._speaker.person
        self.chat += messages
        if not self._seated:
            self._sit_down()
        own = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        for message in messages[own[-1] if own else 0 :]:  # of a conversation that goes on, only its end is new
            if message["role"] == "user":
                person.shows("user", message["content"], "green")
            elif message["role"] == "tool":
                person.shows("result", message["content"], "yellow")
            elif message["role"] == "assistant" and message["content"]:
                person.shows("you", message["content"], "dim")
        async with UntilAbort(self.aborted):
            said = await person.turn()
        self.turns += 1
        return ParsedTurn(None, None, [said]) if isinstance(said, ParsedCall) else ParsedTurn(said, None)

    def _sit_down(self) -> None:
        self._seated, task, solo = True, self._speaker.task, self._speaker.solo
        pages = {"policy": str(self.chat[0]["content"]), "scenario": str(task.user_scenario).strip()}
        if solo:
            pages = {"policy": pages["policy"], "ticket": str(task.ticket)}
        person, part = self._speaker.person, Part("you", self.tools, pages, talks=not solo)
        if person.part == part:  # the same conversation, taken up again
            return
        person.sit_down(part)
        terminal = person.terminal
        terminal.show(f"\n{self._speaker.domain}, task {task.id}: you are the agent.", "bold")
        terminal.show(pages["ticket"] if solo else "/policy shows your instructions, /scenario the user's (a spoiler).")
        terminal.show("/tools lists your tools, /help the commands.", "dim")
