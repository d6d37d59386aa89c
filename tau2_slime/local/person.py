"""A person in a conversation: what they are shown, what they may type, and what they mean by it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tau2_slime.errors import EpisodeAborted
from tau2_slime.local.scripted_user import STOP, TRANSFER
from tau2_slime.local.terminal import Terminal
from tau2_slime.local.typed import COMMAND, completions, details, read_call, signature, usage
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, Tool
from tau2_slime.world import tau2_compat
from tau2_slime.world.environment import World, tool_schema
from tau2_slime.world.users import UserStats

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, UserMessage


PAGES = {"policy": "your instructions", "scenario": "what the user wants", "ticket": "what is to be done"}
"""What the pages are that a part may have."""


@dataclass
class Part:
    """What the person plays in one conversation."""

    title: str
    tools: list[Tool] = field(default_factory=list)
    pages: Mapping[str, str] = field(default_factory=dict)
    """Command -> the text that it prints."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Command -> the message that it sends."""
    talks: bool = True
    """False: only calls may be sent (a solo agent)."""


class Person:
    """Someone at the terminal."""

    def __init__(self, terminal: Terminal | None = None, *, undo: bool = False) -> None:
        """``terminal``: where they sit; None: this process's, taken when they are first asked.

        ``undo``: whoever plays the conversation can go back.
        """
        self._terminal, self._undo = terminal, undo
        self.part = Part("")
        self.before_turn: Callable[[], None] = lambda: None
        """Called each time before they are asked for a message."""
        self.left = self.undoes = False
        """They have left; they want to go back. Whoever plays the conversation looks here."""
        self.on_leaving: Callable[[], None] = interrupt

    @property
    def terminal(self) -> Terminal:
        if self._terminal is None:
            self._terminal = Terminal()
        return self._terminal

    def sit_down(self, part: Part) -> None:
        """From now on they play ``part``."""
        self.part = part
        self.terminal.complete = lambda before: completions(before, part.tools, self.commands)

    @property
    def commands(self) -> dict[str, str]:
        """Name -> what it does."""
        part = self.part
        return {
            **{name: PAGES.get(name, "show it") for name in part.pages},
            **({"tools": "what you can call; /tools NAME says more"} if part.tools else {}),
            **{name: f"send {text}" for name, text in part.words.items()},
            **({"undo": "take back your last message and what followed"} if self._undo else {}),
            "help": "this list",
            "quit": "leave, as Ctrl-D does; nothing is lost",
        }

    def shows(self, who: str, text: str, style: str = "") -> None:
        """Print what somebody said."""
        self.terminal.show(f"{who}: {text}", style)

    async def turn(self) -> str | ParsedCall:
        """Their next message: words, or a call that fits its tool.

        Raises:
            EpisodeAborted: they leave, or want to go back.
        """
        self.before_turn()
        while True:
            try:
                line = (await self.terminal.line(f"{self.part.title}> ")).strip()
            except KeyboardInterrupt:  # the line is gone, as in a shell
                continue
            except EOFError:
                line = f"{COMMAND}quit"
            if not line:
                continue
            if line.startswith(COMMAND) and not line.startswith(COMMAND * 2):
                said = self._command(line.removeprefix(COMMAND))
            else:
                said = line.removeprefix(COMMAND) if line.startswith(COMMAND * 2) else line
            if said is not None and (isinstance(said, ParsedCall) or self.part.talks):
                return said
            if isinstance(said, str):
                self._tell("nobody hears you here: call a tool, such as /done")

    def _command(self, line: str) -> str | ParsedCall | None:
        """What a command sends; None if it only shows something."""
        name, _, rest = line.partition(" ")
        part, rest = self.part, rest.strip()
        tools = {tool["function"]["name"]: tool for tool in part.tools}
        if name in tools:
            call = read_call(line, part.tools)
            if call.status is CallStatus.OK:
                return call
            self._tell(f"{call.error or 'this call cannot be read'}\nwrite {signature(tools[name])}")
        elif name not in self.commands:
            self._tell(f"no command {COMMAND}{name}: {COMMAND}help lists them (words that begin with / need //)")
        elif name in part.words:
            return part.words[name]
        elif name in part.pages:
            self.terminal.show(part.pages[name])
        elif name == "tools" and rest.removeprefix(COMMAND) in tools:
            self.terminal.show(details(tools[rest.removeprefix(COMMAND)]))
        elif name == "tools":
            self.terminal.show("\n".join(map(usage, part.tools)))
        elif name == "help":
            known = "\n".join(f"{COMMAND}{one:12}{what}" for one, what in self.commands.items())
            self.terminal.show(f"Type your message, or a command (Tab completes it):\n{known}")
        elif name == "undo":
            self.undoes = True
            raise EpisodeAborted("taken back")
        else:
            self.left = True
            self.on_leaving()
            raise EpisodeAborted("the person at the terminal left")
        return None

    def _tell(self, problem: str) -> None:
        self.terminal.show(problem, "red")


def interrupt() -> None:
    """End the whole command as Ctrl-C does: whoever leaves a conversation does not want the next one."""
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def leaving_on_signals(leave: Callable[[], None]) -> Iterator[None]:
    """Inside, Ctrl-C while somebody else speaks, a closed terminal and SIGTERM call ``leave`` and do nothing else."""
    loop, handled = asyncio.get_running_loop(), []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, leave)
        handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


class HumanUser:
    """The person at this terminal plays the user; a `world.users.User`."""

    def __init__(self, world: World, person: Person | None = None) -> None:
        self.stats = UserStats()
        self._world, self._person = world, person or Person()
        self._calls = 0
        self._greeted = False
        self._before: Sequence[Message] = ()
        """What was said before the person sat down."""

    def start(self, history: Sequence[Message]) -> None:
        self._before = history
        self._calls = sum(len(message.tool_calls or []) for message in history if message.role == "user")

    def _begin(self) -> None:
        self._greeted, world = True, self._world
        scenario = str(world.task.user_scenario).strip()
        tools = [tool_schema(tool) for tool in world.user_tools or []]
        pages, words = {"scenario": scenario}, {"stop": STOP, "transfer": TRANSFER}
        before = self._person.part
        self._person.sit_down(Part("you", tools, pages, words))
        if before == self._person.part:  # the same conversation, taken up again
            return
        self._person.terminal.show(f"\n{world.domain}, task {world.task.id}: you are the user.", "bold")
        self._person.terminal.show(scenario)
        self._person.terminal.show("/help lists the commands. /stop hangs up when your wish is met or refused.", "dim")
        names = {"assistant": "agent", "user": "you", "tool": "result"}
        said = [(names[one.role], one.content) for one in self._before if one.role in names and one.content]
        if said:
            self._person.terminal.show("\nThe conversation so far:", "dim")
        for who, text in said:
            self._person.shows(who, text, "dim")

    async def reply(self, message: Delivered) -> UserMessage:
        t, person = tau2_compat.load(), self._person
        if not self._greeted:
            self._begin()
        for one in getattr(message, "tool_messages", None) or [message]:
            if one.role == "tool":
                person.shows("result", one.content or "", "yellow")
            else:
                person.shows("agent", one.content or "", "cyan")
        said = await person.turn()
        if isinstance(said, str):
            return t.UserMessage(role="user", content=said, cost=0.0)
        self._calls += 1
        call = t.ToolCall(id=f"user_call_{self._calls}", name=said.name, arguments=said.arguments, requestor="user")
        return t.UserMessage(role="user", content=None, tool_calls=[call], cost=0.0)
