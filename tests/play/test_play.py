"""`tau2-slime play` in a real pseudo-terminal, and a person in a rollout and an evaluation."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.episode.play import EpisodeSetup, play_and_score
from tau2_slime.episode.setup import build_episode
from tau2_slime.episode.transcript import Transcript
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.drift_check import DriftCounts, check_drift
from tau2_slime.inspector.shown import only_placeholders
from tau2_slime.inspector.sources import read_episodes
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.local.policy_server import PolicyServer
from tau2_slime.observe.unfinished import Unfinished
from tau2_slime.slime_adapter import resume
from tau2_slime.slime_adapter.sample import StandaloneSample
from tau2_slime.tokens.calls.types import ParsedTurn, Tool
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.users import UserStats
from tests.evaluation.api_server import ApiServer, gold
from tests.play.terminal import TerminalProcess
from tests.test_cli import tau2_slime

MOCK = ("play", "--domain", "mock", "--task-id", "create_task_1", "--output-dir", "out")
REFERENCE = "my case reference is mock/base/create_task_1."


def the_row(folder: Path) -> dict[str, Any]:
    (row,) = [json.loads(line) for line in (folder / "trajectories.jsonl").read_text().splitlines()]
    return row


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(m["role"], m["content"]) for m in row["messages"] if m.get("content") and m["role"] != "tool"]


def check_tokens(folder: Path) -> None:
    """The inspector reads the episode, and every token is what the template writes or the server sampled."""
    found = read_episodes(folder)
    language, counts = language_of(found, None, {}), DriftCounts()
    assert language is not None and not found.unreadable
    (one,) = found.trajectories
    assert check_trajectory(one) == check_drift(one, language, counts) == []
    assert one.ledger is not None and counts.prompts == 1 and counts.turns >= 2


def test_the_user_talks_goes_back_and_hangs_up(tmp_path: Path) -> None:
    with TerminalProcess(*MOCK, folder=tmp_path) as terminal:
        terminal.expect(f"once you say: {REFERENCE}")
        terminal.expect("Create a new task called 'Important Meeting'")  # the scenario
        terminal.say("A slip of the tongue")
        terminal.expect("agent: Could you please tell me your case reference?")
        terminal.say("/nonsense")
        terminal.expect("no command /nonsense: /help lists them")
        terminal.complete("/und", "o")
        terminal.expect("Taken back")
        terminal.say("/undo")
        terminal.expect("There is nothing to take back")
        terminal.say(f"Hello, {REFERENCE}")
        terminal.expect("agent: Your case is now complete")
        terminal.say("//stop is a word")
        terminal.expect("agent: ")
        terminal.say("/stop")
        terminal.expect("reward 1 (user_stop)")
        terminal.expect("DB 1, COMMUNICATE 1")
        assert terminal.end() == 0
    row = the_row(tmp_path / "out")
    assert [text for role, text in said(row) if role == "user"] == [
        f"Hello, {REFERENCE}",
        "/stop is a word",
        "###STOP###",
    ]
    assert (row["reward"], row["user_model"], row["user_strategy"], row["status"]) == (1, "human", "human", "completed")
    check_tokens(tmp_path / "out")


@pytest.mark.parametrize("leave", ["ctrl-d", "hang up", "kill -9"])
def test_who_leaves_loses_nothing(tmp_path: Path, leave: str) -> None:
    with TerminalProcess(*MOCK, folder=tmp_path) as terminal:
        terminal.say("First words")
        terminal.expect("agent: Could you please tell me your case reference?")
        terminal.expect("you>")
        terminal.type("half a li")
        if leave == "ctrl-d":
            terminal.type("\x15\x04")  # an empty line first: Ctrl-D in a line deletes a letter
            terminal.expect("this goes on: tau2-slime play")
            assert terminal.end() == 3
        elif leave == "hang up":
            terminal.hang_up()
            assert terminal.wait() != 0
        else:
            terminal.send(signal.SIGKILL)
            terminal.wait()
    (one,) = read_episodes(tmp_path / "out").trajectories
    assert one.status == "aborted" and one.messages[1]["content"] == "First words"
    with TerminalProcess(*MOCK, folder=tmp_path) as terminal:
        terminal.expect("goes on where it was left")
        terminal.expect("you: First words")
        terminal.expect("agent: Could you please tell me your case reference?")
        terminal.say(f"Yes, {REFERENCE}")
        terminal.expect("agent: Your case is now complete")
        terminal.say("/stop")
        terminal.expect("reward 1 (user_stop)")
        assert terminal.end() == 0
    row = the_row(tmp_path / "out")
    assert [text for role, text in said(row) if role == "user"] == ["First words", f"Yes, {REFERENCE}", "###STOP###"]
    assert row["stats"]["resumes"] == 1
    check_tokens(tmp_path / "out")
    for arguments, words in (
        (MOCK, "holds an episode that is over; name another folder"),
        ((*MOCK, "--as", "agent"), "the agent was {'kind': 'embedded'"),
        ((*MOCK, "-t", "update_task_1"), "holds another run already; name another folder"),
    )[: 3 if leave == "ctrl-d" else 0]:
        with TerminalProcess(*arguments, folder=tmp_path) as terminal:
            terminal.expect(words)
            assert terminal.end() == 2


def test_the_agent_calls_tools_as_commands_and_is_told_what_it_missed(tmp_path: Path) -> None:
    with TerminalProcess(*MOCK, "--as", "agent", folder=tmp_path) as terminal:
        terminal.expect("you are the agent")
        terminal.expect(f"user: Hello, {REFERENCE}")
        terminal.say("/tools create_task")
        terminal.expect("user_id (a string)")
        terminal.say("/create_task title=Another one")
        terminal.expect("'user_id' is missing")
        terminal.complete("/create_ta", "sk", " user_id=user_1 title=Another one")
        terminal.expect('"title": "Another one"')
        for _ in range(4):  # a scripted user that hears nothing of use hangs up
            terminal.say("Anything else?")
        terminal.expect("reward 0 (user_stop)")
        terminal.expect('never called: create_task({"user_id": "user_1", "title": "Important Meeting"})')
        terminal.expect("the database is not as the task's gold actions leave it")
        terminal.expect("Another one")
        assert terminal.end() == 0
    row = the_row(tmp_path / "out")
    assert row["reward"] == 0 and row["user_model"] == "scripted"
    (call,) = [call for m in row["messages"] for call in m.get("tool_calls") or []]
    assert (call["name"], call["arguments"]) == ("create_task", {"user_id": "user_1", "title": "Another one"})
    (one,) = read_episodes(tmp_path / "out").trajectories
    assert one.reward == 0 and only_placeholders(one), "a person has no tokens"
    assert check_trajectory(one) == []


def test_a_user_has_tools_too(tmp_path: Path) -> None:
    with TerminalProcess("play", "-d", "telecom", "-o", "out", folder=tmp_path) as terminal:
        terminal.say("/check_status_bar")
        terminal.expect("result: Status Bar")
        terminal.say("/quit")
        assert terminal.end() == 3
    row = the_row(tmp_path / "out")
    assert [m["role"] for m in row["messages"]] == ["assistant", "user", "tool"]
    assert row["messages"][1]["tool_calls"][0]["requestor"] == "user"


async def test_a_model_that_fails_costs_no_word(tmp_path: Path) -> None:
    broken: list[bool] = [True]
    async with ApiServer(lambda body: {"status": 400} if broken else gold(body)) as server:
        arguments = (*MOCK, "--policy-model", "openai/some-model", "--policy-base-url", server.url)

        def first() -> None:
            with TerminalProcess(*arguments, folder=tmp_path) as terminal:
                terminal.say(f"Good day, {REFERENCE}")
                terminal.expect("tau2-slime: policy model openai/some-model: ")
                terminal.expect("HTTP 400")
                terminal.expect("the conversation is kept, and this goes on:")
                assert terminal.end() == 3

        def second() -> None:
            with TerminalProcess(*arguments, folder=tmp_path) as terminal:
                terminal.expect("agent: Your case is now complete")
                terminal.say("/stop")
                terminal.expect("reward 1 (user_stop)")
                assert terminal.end() == 0

        await asyncio.to_thread(first)
        broken.clear()
        await asyncio.to_thread(second)
    row = the_row(tmp_path / "out")
    assert [text for role, text in said(row) if role == "user"] == [f"Good day, {REFERENCE}", "###STOP###"]


@pytest.mark.parametrize("command", ["rollout", "eval"])
def test_a_person_plays_the_user_of_a_run(tmp_path: Path, command: str) -> None:
    arguments = (command, "--user-strategy", "human", "-d", "mock", "-o", "out", "--attempts", "2")
    arguments += ("--task-ids", "create_task_1", *(["--split", "base"] if command == "eval" else []))
    with TerminalProcess(*arguments, folder=tmp_path) as terminal:
        for _ in range(2):  # one conversation after the other
            terminal.expect("mock, task create_task_1: you are the user")
            terminal.say(f"Hello, {REFERENCE}")
            terminal.expect("agent: Your case is now complete")
            terminal.say("/stop")
        terminal.expect("mean reward 1.000" if command == "rollout" else "pass^1")
        assert terminal.end() == 0


async def test_kill_9_while_the_agent_thinks_loses_no_word(tmp_path: Path) -> None:
    slow = [True]

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return {**gold(body), "sleep": 60 if slow and len(body["messages"]) > 4 else 0}

    async with ApiServer(answer) as server:
        arguments = (*MOCK, "--policy-model", "openai/m", "--policy-base-url", server.url)

        def first() -> None:
            with TerminalProcess(*arguments, folder=tmp_path) as terminal:
                terminal.say("First words")
                terminal.expect("agent: What is your case reference?")
                terminal.say("Second words")
                while len(server.requests) < 2:
                    time.sleep(0.05)
                terminal.send(signal.SIGKILL)
                terminal.wait()

        def second() -> None:
            with TerminalProcess(*arguments, folder=tmp_path) as terminal:
                terminal.expect("you: Second words")
                terminal.say(f"Yes, {REFERENCE}")
                terminal.expect("agent: Your case is now complete")
                terminal.say("/stop")
                terminal.expect("reward 1 (user_stop)")
                assert terminal.end() == 0

        await asyncio.to_thread(first)
        slow.clear()
        await asyncio.to_thread(second)
    users = [text for role, text in said(the_row(tmp_path / "out")) if role == "user"]
    assert users == ["First words", "Second words", f"Yes, {REFERENCE}", "###STOP###"]


async def test_a_router_that_is_lost_costs_no_word_and_every_token_is_kept(tmp_path: Path, checkpoint: Path) -> None:
    def arguments(server: PolicyServer) -> tuple[str, ...]:
        return (*MOCK, "--router", server.url, "--hf-checkpoint", str(checkpoint), "--set", "request_retries=0")

    def first(words: tuple[str, ...], lose: Callable[[], None]) -> None:
        with TerminalProcess(*words, folder=tmp_path) as terminal:
            terminal.say("First words")
            terminal.expect("agent: Could you please tell me your case reference?")
            terminal.expect("you>")
            lose()
            terminal.type("Second words\r")
            terminal.expect("the conversation is kept, and this goes on: tau2-slime play")
            assert terminal.end() == 3

    def second(words: tuple[str, ...]) -> None:
        with TerminalProcess(*words, folder=tmp_path) as terminal:
            terminal.expect("you: Second words")
            terminal.expect("agent: Could you please tell me your case reference?")
            terminal.say(f"Yes, {REFERENCE}")
            terminal.expect("agent: Your case is now complete")
            terminal.say("/stop")
            terminal.expect("reward 1 (user_stop)")
            assert terminal.end() == 0

    loop = asyncio.get_running_loop()
    async with PolicyServer(checkpoint) as server:
        await asyncio.to_thread(
            first, arguments(server), lambda: asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        )
    async with PolicyServer(checkpoint) as server:
        await asyncio.to_thread(second, arguments(server))
    row = the_row(tmp_path / "out")
    users = [text for role, text in said(row) if role == "user"]
    assert users == ["First words", "Second words", f"Yes, {REFERENCE}", "###STOP###"]
    assert json.loads((tmp_path / "out" / "rollout.json").read_text())["policy"]["kind"] == "router"
    check_tokens(tmp_path / "out")


def test_a_task_file_is_played(tmp_path: Path) -> None:
    task = next(t for t in domains.tasks("mock", "base") if t.id == "create_task_1").model_dump(mode="json")
    (tmp_path / "m.jsonl").write_text(json.dumps({**task, "id": "a b/\u00fc"}) + "\n")
    with TerminalProcess("play", "-d", "mock", "--split", "file:m.jsonl", "-o", "out", folder=tmp_path) as terminal:
        terminal.expect("once you say: ")
        terminal.expect("you are the user")
        (reference,) = re.findall(r"my case reference is \S+", terminal.seen)
        terminal.say(f"Hello, {reference}")
        terminal.expect("agent: Your case is now complete")
        terminal.say("/stop")
        terminal.expect("reward 1 (user_stop)")
        assert terminal.end() == 0
    assert the_row(tmp_path / "out")["task_id"] == "a b/\u00fc"
    check_tokens(tmp_path / "out")


def of_a_run(command: str, *more: str) -> tuple[str, ...]:
    words = (command, "--user-strategy", "human", "-d", "mock", "-o", "out", "--task-ids", "create_task_1")
    return (*words, "--max-turns", "200", "--attempts", "1", *(["--split", "base"] if command == "eval" else []), *more)


def finish(arguments: tuple[str, ...], folder: Path, last: str = f"Yes, {REFERENCE}") -> list[tuple[str, str]]:
    """Take up a conversation of a run whose first words are known, bring it to its end, and return what was said."""
    with TerminalProcess(*arguments, folder=folder) as terminal:
        terminal.expect("mock, task create_task_1: you are the user")
        terminal.expect("you: First words")
        terminal.expect("agent: ")
        terminal.say(last)
        terminal.expect("agent: Your case is now complete")
        terminal.say("/stop")
        terminal.expect("mean reward 1.000" if arguments[0] == "rollout" else "pass^1")
        assert terminal.end() == 0
    assert not (folder / "out" / "unfinished.json").exists()
    name = "trajectories.jsonl" if arguments[0] == "rollout" else "simulations.jsonl"
    (row,) = [json.loads(line) for line in (folder / "out" / name).read_text().splitlines()]
    assert row["reward"] == 1.0
    return said(row)


@pytest.mark.parametrize(
    ("command", "leave"),
    [
        *(("rollout", how) for how in ("ctrl-d", "sigterm", "hang up", "kill -9")),
        *(("eval", how) for how in ("/quit", "sigterm", "hang up", "kill -9")),
    ],
)
def test_who_leaves_a_run_loses_nothing(tmp_path: Path, command: str, leave: str) -> None:
    arguments = of_a_run(command)
    with TerminalProcess(*arguments, folder=tmp_path) as terminal:
        terminal.say("First words")
        terminal.expect("agent: Could you please tell me your case reference?")
        terminal.expect("you>")
        if leave == "hang up":
            terminal.hang_up()
            assert terminal.wait() != 0
        elif leave == "kill -9":
            terminal.send(signal.SIGKILL)
            terminal.wait()
        else:
            if leave == "sigterm":
                terminal.send(signal.SIGTERM)
            else:
                terminal.type({"ctrl-d": "\x04", "/quit": "/quit\r"}[leave])
            terminal.expect(f"tau2-slime {command} --user-strategy human")
            assert terminal.end() == 3
    users = [text for role, text in finish(arguments, tmp_path) if role == "user"]
    assert users == ["First words", f"Yes, {REFERENCE}", "###STOP###"]
    if command == "rollout":
        check_tokens(tmp_path / "out")


@pytest.mark.parametrize("command", ["rollout", "eval"])
async def test_ctrl_c_while_the_agent_speaks_loses_nothing(tmp_path: Path, command: str) -> None:
    slow = [True]

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        return {**gold(body), "sleep": 60 if slow and len(body["messages"]) > 4 else 0}

    async with ApiServer(answer) as server:
        arguments = of_a_run(command, "--policy-model", "openai/m", "--policy-base-url", server.url)

        def leave() -> None:
            with TerminalProcess(*arguments, folder=tmp_path) as terminal:
                terminal.say("First words")
                terminal.expect("agent: What is your case reference?")
                terminal.say("Second words")
                while len(server.requests) < 2:
                    time.sleep(0.05)
                terminal.type("\x03")
                terminal.expect(f"tau2-slime {command} --user-strategy human")
                assert terminal.end() == 3

        await asyncio.to_thread(leave)
        slow.clear()
        users = [text for role, text in await asyncio.to_thread(finish, arguments, tmp_path) if role == "user"]
    assert users == ["First words", "Second words", f"Yes, {REFERENCE}", "###STOP###"]


def test_a_damaged_file_of_unfinished_conversations_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "unfinished.json").write_text("{")
    with TerminalProcess(*of_a_run("rollout"), folder=tmp_path) as terminal:
        terminal.expect("unfinished.json is damaged: delete it, and its conversations begin anew")
        assert terminal.end() == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["play"], "needs a terminal, and this process has none"),
        (["play", "--as", "judge"], "--as judge: you can be the user or the agent"),
        (["play", "--as", "agent", "--router", "http://h:1"], "--router would change nothing: you are the agent"),
        (["play", "--user-model", "gpt-4o"], "--user-model would change nothing: you are the user"),
        (["play", "--router", "http://h:1"], "--router needs --hf-checkpoint"),
        (["play", "--policy-args", "{}"], "--policy-args would change nothing: it is about --policy-model"),
        (["rollout", "-d", "mock", "--user-strategy", "human"], "user_strategy human needs a terminal"),
        (["eval", "-d", "mock", "--user-strategy", "human"], "user_strategy human needs a terminal"),
        (["rollout", "--user-strategy", "human", "--user-model", "x"], "--user-model would change nothing: a person"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], words: str) -> None:
    done = tau2_slime(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.strip().splitlines()[-1]


def test_bad_input_in_a_terminal_is_one_line_too(tmp_path: Path) -> None:
    with TerminalProcess(*MOCK[:3], "--task-id", "create_tsk_1", folder=tmp_path) as terminal:
        terminal.expect("tau2-slime: no task 'create_tsk_1' in mock/base")
        assert terminal.end() == 2
    assert not any(tmp_path.iterdir())


def test_a_person_is_not_one_of_a_pool() -> None:
    with pytest.raises(ValueError, match="strategy"):
        Tau2Config.resolve({"user_simulators": [{"model": "x", "strategy": "human"}]}, environ={})
    with pytest.raises(ValueError, match="user_path would change nothing"):
        Tau2Config.resolve({"user_strategy": "human", "user_path": "a.B"}, environ={})


def test_a_new_conversation_names_the_one_that_was_left(tmp_path: Path) -> None:
    """In the folders that the commands choose themselves: kill -9 prints no folder to go on with."""
    words = ("rollout", "--user-strategy", "human", "-d", "mock", "--task-ids", "create_task_1", "--attempts", "1")
    with TerminalProcess(*words, folder=tmp_path) as terminal:
        terminal.say("First words")
        terminal.expect("agent: Could you please tell me your case reference?")
        terminal.expect("you>")
        terminal.send(signal.SIGKILL)
        terminal.wait()
    (left,) = (tmp_path / "runs").iterdir()
    with TerminalProcess(*words, folder=tmp_path) as terminal:
        terminal.expect(f"left in the middle: runs/{left.name}; it goes on with its own command and --output-dir")
        terminal.expect("you>")


def test_what_a_conversation_was_ended_with_is_not_lost_either(tmp_path: Path) -> None:
    """Killed after the last word, before the reward: the same folder is scored, and nobody is asked again."""
    unfinished = Unfinished(tmp_path)
    setup = asyncio.run(_ended(unfinished))
    assert setup.conversation is not None and setup.conversation.ended is not None
    left = unfinished.take("0")
    assert left is not None
    saved = resume.read(left, setup.identity)
    assert saved.conversation["ended"] == ["user_stop", ""]
    again = asyncio.run(_setup())
    result = asyncio.run(play_and_score(again, saved=saved))
    assert (result.termination, result.reward) == ("user_stop", 0.0)
    unfinished.drop(["0"])
    assert unfinished.take("0") is None and not any(tmp_path.iterdir())


class _Silent(Transcript):
    async def turn(self, messages: list[dict[str, Any]]) -> ParsedTurn:
        raise AssertionError("nobody is asked")


class _SilentSpeaker:
    def transcript(self, tools: list[Tool]) -> Transcript:
        return _Silent(tools)


class _HangsUp:
    """The user's seat, without a terminal."""

    def __init__(self) -> None:
        self.stats = UserStats()

    def start(self, history: Any) -> None: ...

    async def reply(self, message: Any) -> Any:
        return tau2_compat.load().UserMessage(role="user", content="Never mind. ###STOP###", cost=0.0)


async def _setup() -> EpisodeSetup:
    config = Tau2Config(domain="mock", task_split="base", user_model="scripted")
    task = domains.find_task("mock", "base", task_id="create_task_1")
    setup = await build_episode(config, task, _SilentSpeaker(), "scripted")
    setup.user, setup.user_strategy, setup.user_model = _HangsUp(), "human", "human"
    return setup


async def _ended(unfinished: Unfinished) -> EpisodeSetup:
    setup = await _setup()
    unfinished.follow("0", setup, StandaloneSample(index=0))
    await play_and_score(setup)
    return setup
