"""One conversation with a person in it: played, taken back, left, taken up again."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tau2_slime.episode.interrupted import Saved
from tau2_slime.episode.play import play_and_score, so_far
from tau2_slime.episode.result import EpisodeStats
from tau2_slime.local.person import HumanUser, leaving_on_signals
from tau2_slime.outcome import Blame, Status
from tau2_slime.tokens.ledger import TokenLedger

if TYPE_CHECKING:
    from tau2_slime.episode.play import EpisodeSetup
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.local.person import Person
    from tau2_slime.play.folder import PlayFolder

Build = Callable[[], Awaitable["EpisodeSetup"]]


class Session:
    """Plays one episode with ``person`` and keeps it in ``folder``."""

    def __init__(self, build: Build, person: Person, folder: PlayFolder) -> None:
        """``build``: a fresh world, the agent and the user; called anew whenever the person goes back."""
        self._build, self._person, self._folder = build, person, folder
        self._setup: EpisodeSetup | None = None
        self._from: Saved | None = None
        """What the conversation that is played was taken up from."""
        self._back: list[Saved] = []
        """The conversation at each time that the person was asked; the last is the message that they are at."""

    async def play(self) -> InteractionResult:
        """Play until the conversation is over or the person leaves; then the result's status is ABORTED.

        If a server fails, that is its status too, and ``detail`` says why: what was said is kept.

        Raises:
            ConfigError: the task cannot be played so, or the folder holds another episode.
            OSError: the episode cannot be written.
        """
        person = self._person
        person.before_turn = self._remember
        person.on_leaving = lambda: None
        setup = await self._new_setup()
        self._from = self._folder.saved(setup.identity)
        if self._from is not None:
            person.terminal.show("The conversation goes on where it was left.", "dim")
            if not isinstance(setup.user, HumanUser):  # who tells it then
                self._tell_again(self._from)
        with leaving_on_signals(self._leave):
            while True:
                result = await play_and_score(setup, aborted=lambda: person.left, saved=self._from)
                if not person.undoes:
                    break
                person.undoes = False
                self._go_back()
                setup = await self._new_setup()
        conversation, unscored = setup.conversation, result.blame is Blame.INFRASTRUCTURE
        failed = result.status is Status.FAILED
        if failed and conversation is not None and (unscored or conversation.ended is None):
            result = dataclasses.replace(so_far(setup), detail=result.detail)
        self._folder.keep(result)
        return result

    async def _new_setup(self) -> EpisodeSetup:
        setup = self._setup = await self._build()
        if isinstance(setup.user, HumanUser):
            setup.user = HumanUser(setup.agent.world, self._person)
        setup.after_hop = self._keep
        return setup

    def _keep(self) -> InteractionResult:
        """Write the conversation as it is."""
        assert self._setup is not None
        result = so_far(self._setup)
        self._folder.keep(result)
        return result

    def _remember(self) -> None:
        """The person is about to be asked: keep the conversation, on the disk and for `undo`."""
        result = self._keep()
        assert result.saved is not None
        state = copy.deepcopy(result.saved)  # the episode goes on and changes what it is made of
        ledger = None if result.ledger is None else TokenLedger.from_dict(result.ledger.to_dict())
        self._back.append(Saved(state["conversation"], state["transcript"], EpisodeStats(**state["stats"]), ledger))

    def _go_back(self) -> None:
        terminal = self._person.terminal
        at = self._back.pop()
        if self._back:
            at = self._back.pop()
            terminal.show("Taken back. The conversation is at:", "dim")
        else:
            terminal.show("There is nothing to take back.", "red")
        self._from = at

    def _tell_again(self, saved: Saved) -> None:
        for message in saved.conversation["messages"][:-1]:
            if message["role"] in ("assistant", "user") and message.get("content"):
                self._person.shows({"assistant": "agent"}.get(message["role"], "user"), message["content"], "dim")

    def _leave(self) -> None:
        self._person.left = True
