"""Plays of a task without a model: doing nothing, transferring to a human at once, and the gold actions.

τ² pays the first two on some tasks, and does not pay the third on all: a score means something only beside these. They are
really played and really scored, through the same episode code as everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.agents import TrainableLLMAgent
from tau2_slime.episode.conversation import Limits
from tau2_slime.episode.result import InteractionResult
from tau2_slime.episode.transcript import Transcript
from tau2_slime.local.gold import DONE_TOOL, GoldScript
from tau2_slime.local.scripted_user import ScriptedUser
from tau2_slime.tokens.calls.parsers.chat_server import parsed_call
from tau2_slime.tokens.calls.types import CallStatus, ParsedCall, ParsedTurn, Tool
from tau2_slime.world import scoring, tau2_compat
from tau2_slime.world.environment import World, new_world
from tau2_slime.world.users import User, UserStats

if TYPE_CHECKING:
    from tau2_slime.world.types import Delivered, Message, Task, UserMessage

NOTHING, TRANSFER = "do_nothing", "transfer_at_once"
KINDS = (NOTHING, TRANSFER)
TRANSFER_TOOL = "transfer_to_human_agents"
_LIMITS = Limits(max_steps=100_000, max_errors=100_000, max_turns=100_000)

Words = Callable[[int, list[Tool]], ParsedTurn]
"""The agent's turn number n, from 0, given the tools that it is offered."""


class LinesSpeaker:
    """An agent whose words are known beforehand."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def transcript(self, tools: list[Tool]) -> Transcript:
        return _Lines(tools, self._words)


class _Lines(Transcript):
    def __init__(self, tools: list[Tool], words: Words) -> None:
        super().__init__(tools)
        self._words = words

    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        self.chat += messages
        self.turns += 1
        return self._words(self.turns - 1, self.tools)


def baseline_words(kind: str, *, solo: bool) -> Words:
    """One sentence in every turn, after a transfer if that is its kind. In solo mode, where text is an error, it is done."""

    def words(turn: int, tools: list[Tool]) -> ParsedTurn:
        if kind == TRANSFER and turn == 0:
            return ParsedTurn(None, None, [parsed_call(TRANSFER_TOOL, '{"summary": "The user asks for help."}', tools)])
        if solo:
            return ParsedTurn(None, None, [parsed_call(DONE_TOOL, "{}", tools)])
        if kind == TRANSFER:
            return ParsedTurn("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.", None)
        return ParsedTurn("I am afraid that there is nothing I can do.", None)

    return words


def gold_words(script: GoldScript) -> Words:
    """The agent's part of a task's gold play."""

    def words(turn: int, _: list[Tool]) -> ParsedTurn:
        said = script.turn(turn)
        if said.call is None:
            return ParsedTurn(said.text, None)
        name, arguments = said.call
        return ParsedTurn(None, None, [ParsedCall(name, arguments, CallStatus.OK, "")])

    return words


class LeavingUser:
    """A user who asks for help and leaves at the first answer; it does nothing on its own device."""

    def __init__(self) -> None:
        self.stats = UserStats()
        self._asked = False

    def start(self, history: list[Message]) -> None:
        self._asked = any(message.role == "user" for message in history)

    async def reply(self, message: Delivered) -> UserMessage:
        text = "###STOP###" if self._asked else "Hello, I need some help."
        self._asked = True
        said: UserMessage = tau2_compat.load().UserMessage(role="user", content=text, cost=0.0)
        return said


class Paid(NamedTuple):
    """The rewards of a task's three plays without a model; None for one that τ² cannot score."""

    gold: float | None
    do_nothing: float | None
    transfer: float | None
    why: str
    """Why gold has no reward; empty if it has one."""


def paid_without_a_model(config: Tau2Config, task: Task, *, unmodified: bool = False) -> Paid:
    """All three plays, for callers that are not coroutines. ``unmodified``: by τ²'s own code alone, without `world/fast`."""

    async def play() -> Paid:
        gold = await play_gold(config, task, unmodified=unmodified)
        nothing = await play_baseline(config, task, NOTHING, unmodified=unmodified)
        transfer = await play_baseline(config, task, TRANSFER, unmodified=unmodified)
        if gold is None:
            return Paid(None, nothing, transfer, "no agent can begin it")
        return Paid(gold.reward, nothing, transfer, "" if gold.reward is not None else gold.detail)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(play())
    with ThreadPoolExecutor(1) as thread:  # a loop cannot wait for a coroutine of its own
        return thread.submit(asyncio.run, play()).result()


async def play_baseline(config: Tau2Config, task: Task, kind: str, *, unmodified: bool = False) -> float | None:
    """The reward of one of `KINDS` on ``task``; None if τ² needs a judge to score it, or cannot score it at all."""
    solo = config.agent_type == "solo"
    if scoring.needs_judge(task):
        return None
    world = await _world(config, task, unmodified=unmodified)
    if kind == TRANSFER and all(tool.name != TRANSFER_TOOL for tool in world.agent_tools):
        kind = NOTHING  # there is nobody to transfer to
    played = await _play(world, baseline_words(kind, solo=solo), None if solo else LeavingUser(), Limits())
    return played.reward if played is not None else None


async def play_gold(config: Tau2Config, task: Task, *, unmodified: bool = False) -> InteractionResult | None:
    """The task's gold actions, everything that it wants communicated said at the end; None where no agent can begin it.

    The reward of the result is None if τ² cannot score it; ``detail`` says why.
    """
    solo = config.agent_type == "solo"
    world = await _world(config, task, unmodified=unmodified)
    words = gold_words(GoldScript.from_task(task, solo=solo))
    user = None if solo else ScriptedUser(task, config.domain, config.task_split)
    return await _play(world, words, user, _LIMITS)


async def _world(config: Tau2Config, task: Task, *, unmodified: bool) -> World:
    solo = config.agent_type == "solo"
    world = await new_world(config.domain, config.task_split, task, solo=solo, env_kwargs=config.environment)
    if unmodified:
        world.fast, world.quick = None, False
    return world


async def _play(world: World, words: Words, user: User | None, limits: Limits) -> InteractionResult | None:
    try:
        agent = TrainableLLMAgent(world, LinesSpeaker(words), "solo" if world.solo else "llm")
    except ValueError:  # a task without a ticket cannot be played alone
        return None
    return await agent.asolve(user, limits)
