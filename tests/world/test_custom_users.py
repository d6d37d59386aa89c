"""A user simulator of one's own, by dotted path or from τ²'s registry: it talks, and what cannot play is refused at once."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tau2_slime.chat.faults import Fault
from tau2_slime.episode.conversation import Conversation, Limits
from tau2_slime.errors import ConfigError, UserAuthenticationError
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.users import UserContext, UserSpec, endpoints
from tau2_slime.world.users.custom import custom_user, registered_users
from tau2_slime.world.users.tau2_user import ThreadedTau2User
from tests import parity_play as play
from tests.fresh import forget_users

SOURCE = '''
import asyncio, threading
from tau2.data_model.message import UserMessage
from tau2.registry import registry
from tau2.user.user_simulator import UserSimulator
from tau2_slime.world.users.protocol import UserStats
import litellm


class Own:
    """Says what it wants, then what it was built with, then goodbye."""

    def __init__(self, context):
        self.context, self.stats, self.heard = context, UserStats(), []

    def start(self, history):
        self.heard = [m.content for m in history]

    async def reply(self, message):
        self.heard.append(message.content)
        self.stats.calls += 1
        await asyncio.sleep(0)
        texts = ["Please create it.", f"For {self.context.args['who']}.", "###STOP###"]
        return UserMessage(role="user", content=texts[self.stats.calls - 1])


class Blocking(UserSimulator):
    """A τ² user without a model."""

    threads = []

    def generate_next_message(self, message, state):
        self.threads.append(threading.current_thread().name)
        state.messages.append(message)
        said = "###STOP###" if len(state.messages) > 2 else f"I have heard {len(state.messages)}, {self.llm_args['who']}."
        reply = UserMessage(role="user", content=said, cost=0.25, usage={"prompt_tokens": 5, "completion_tokens": 2})
        state.messages.append(reply)
        return reply, state


class Broken(Blocking):
    def generate_next_message(self, message, state):
        raise KeyError("a mistake in the class")


class Refused(Blocking):
    def generate_next_message(self, message, state):
        raise litellm.exceptions.AuthenticationError("the key very-secret-indeed is wrong", "openai", "m")


class Busy(Blocking):
    def generate_next_message(self, message, state):
        raise litellm.exceptions.RateLimitError("slow down", "openai", "m")


class Mute(Blocking):
    def generate_next_message(self, message, state):
        return "text", state


class OwnEnd(Blocking):
    @classmethod
    def is_stop(cls, message):
        return "heard" in message.content


class VoiceOnly(Blocking):
    def get_next_chunk(self):
        pass


class Asynchronous(Blocking):
    async def generate_next_message(self, message, state):
        pass


class OddTau2(Blocking):
    def __init__(self, prompt):
        pass


class NoStart:
    async def reply(self, message):
        pass


class NotAsync(Own):
    def reply(self, message):
        pass


class NoArguments(Own):
    def __init__(self):
        pass


class NoStats(Own):
    def __init__(self, context):
        pass


registry._users.pop("registered_blocking", None)
registry.register_user(Blocking, "registered_blocking")
AN_INSTANCE = object()
'''


@pytest.fixture(scope="module", autouse=True)
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_users.py").write_text(SOURCE, encoding="utf-8")
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(folder)
    yield
    tau2_compat.load().registry._users.pop("registered_blocking", None)
    patch.undo()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    forget_users()
    yield
    forget_users()


def context(**spec: Any) -> UserContext:
    task = domains.tasks("mock", "base")[0]
    told = {"base_url": "http://127.0.0.1:9/v1", "args": {"who": "user_1"}, **spec}
    return UserContext(
        task=task,
        domain="mock",
        split="base",
        instructions=str(task.user_scenario),
        tools=None,
        spec=UserSpec("openai/test", **told),
    )


def talk(user: Any) -> tuple[Termination, str, list[str]]:
    """(how it ended, why, what the user said) against an agent that asks on and on."""
    world = World("mock", "base", domains.tasks("mock", "base")[0])
    script = play.Script(agent=[play.Turn(f"Question {n}?") for n in range(9)], user=[])
    conversation = Conversation(world, play.ScriptedAgent(script), user, Limits())
    termination, detail = asyncio.run(conversation.play())
    return termination, detail, [m.content for m in conversation.messages if m.role == "user"]


# ---- who can play ------------------------------------------------------------------------------------------------------


def test_a_class_of_ones_own_talks() -> None:
    user: Any = custom_user("own_users.Own")(context())
    assert talk(user) == (Termination.USER_STOP, "", ["Please create it.", "For user_1.", "###STOP###"])
    assert user.heard == ["Hi! How can I help you today?", "Question 0?", "Question 1?"]
    assert user.context.task is domains.tasks("mock", "base")[0] and user.stats.calls == 3


@pytest.mark.parametrize("path", ["own_users.Blocking", "registered_blocking"])
def test_a_user_of_tau2_talks_in_a_thread(path: str) -> None:
    custom_user("own_users.Blocking")  # the registry knows it from its own module
    user = custom_user(path)(context())
    termination, _, said = talk(user)
    assert termination is Termination.USER_STOP
    assert said == ["I have heard 1, user_1.", "###STOP###"]
    import own_users  # type: ignore[import-not-found]

    assert set(own_users.Blocking.threads) and threading.current_thread().name not in own_users.Blocking.threads
    stats = user.stats
    assert (stats.calls, stats.cost, stats.prompt_tokens, stats.completion_tokens) == (2, 0.5, 10, 4)
    assert stats.played == {"openai/test": 2} and stats.seconds > 0


def test_a_user_of_tau2_takes_a_history_up() -> None:
    user: Any = custom_user("own_users.Blocking")(context())
    t = tau2_compat.load()
    user.start([t.FIRST_AGENT_MESSAGE, t.UserMessage(role="user", content="I said this.")])
    reply = asyncio.run(user.reply(t.AssistantMessage(role="assistant", content="Go on.")))
    assert reply.content == "###STOP###", "the history counts"


def test_tau2s_own_simulator_can_be_named() -> None:
    assert "user_simulator" in registered_users() and "dummy_user" not in registered_users()
    user: Any = custom_user("user_simulator")(context())
    assert isinstance(user, ThreadedTau2User)
    assert user._user.llm == "openai/test"
    asked = user._user.llm_args
    assert (asked["api_base"], asked["api_key"], asked["caching"]) == ("http://127.0.0.1:9/v1", "none", False)
    assert (asked["timeout"], asked["num_retries"], asked["who"]) == (120.0, 4, "user_1")


def test_a_user_with_a_model_needs_its_key_and_one_without_does_not() -> None:
    from tau2.user.base import BaseUser

    class Rules(BaseUser):
        def __init__(self, tools: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)

        def get_init_state(self, message_history: Any = None) -> Any:
            return None

        def generate_next_message(self, message: Any, state: Any) -> Any:
            return None

        @classmethod
        def is_stop(cls, message: Any) -> bool:
            return False

    keyless = context(base_url=None, api_key_var="MY_USER_KEY")
    with pytest.raises(ConfigError, match="MY_USER_KEY"):
        custom_user("user_simulator")(keyless)
    assert "api_key" not in ThreadedTau2User("rules", Rules, keyless)._user.llm_args


# ---- who cannot --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nobody", ["neither a dotted path", "registry", "user_simulator"]),
        ("no_such_module.User", ["no_such_module"]),
        ("own_users.Nobody", ["Nobody"]),
        ("own_users.AN_INSTANCE", ["not a class"]),
        ("own_users.NoStart", ["no method start", "protocol.User"]),
        ("own_users.NotAsync", ["async def"]),
        ("own_users.NoArguments", ["constructor must take one UserContext"]),
        ("own_users.OddTau2", ["constructor must take tools, instructions, llm, llm_args"]),
        ("own_users.VoiceOnly", ["voice"]),
        ("own_users.Asynchronous", ["asynchronous"]),
        ("tau2.user.base.BaseUser", ["abstract", "generate_next_message"]),
        ("dummy_user", ["solo"]),
        ("tau2.user.user_simulator.DummyUser", ["solo"]),
        ("json.JSONDecoder", ["no method start and no method reply"]),
    ],
)
def test_who_cannot_play_is_refused_before_anything_is_built(path: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        custom_user(path)
    assert repr(path) in str(caught.value)
    for words in says:
        assert words in str(caught.value)


def test_a_user_without_stats_is_refused() -> None:
    build = custom_user("own_users.NoStats")
    with pytest.raises(ConfigError, match=r"own_users\.NoStats.*self\.stats = UserStats\(\)"):
        build(context())


# ---- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_mistake_in_the_class_is_infrastructure_and_a_provider_is_the_users() -> None:
    termination, detail, _ = talk(custom_user("own_users.Broken")(context()))
    assert (termination, detail) == (Termination.INFRASTRUCTURE_ERROR, "KeyError: 'a mistake in the class'")
    busy = custom_user("own_users.Busy")(context())
    termination, detail, _ = talk(busy)
    assert termination is Termination.USER_ERROR and "own_users.Busy" in detail and "slow down" in detail
    assert busy.stats.faults == {Fault.RATE_LIMIT: 1}
    termination, detail, _ = talk(custom_user("own_users.Mute")(context()))
    assert termination is Termination.INFRASTRUCTURE_ERROR and "returned str" in detail


def test_a_refused_key_stops_the_run_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_USER_KEY", "very-secret-indeed")
    told = context(api_key_var="MY_USER_KEY")
    termination, detail, _ = talk(custom_user("own_users.Refused")(told))
    assert termination is Termination.CONFIG_ERROR
    assert "MY_USER_KEY" in detail and "very-secret-indeed" not in detail
    with pytest.raises(UserAuthenticationError):
        endpoints.check_key(told.spec.host, "MY_USER_KEY")


def test_another_rule_for_the_end_is_refused() -> None:
    termination, detail, _ = talk(custom_user("own_users.OwnEnd")(context()))
    assert termination is Termination.CONFIG_ERROR and "###STOP###" in detail


def test_a_spent_budget_is_noticed() -> None:
    first = custom_user("own_users.Blocking")(context(budget=0.5))
    assert talk(first)[0] is Termination.USER_STOP
    termination, detail, _ = talk(custom_user("own_users.Blocking")(context(budget=0.5)))
    assert termination is Termination.CONFIG_ERROR and "user_budget" in detail


def test_many_blocking_users_do_not_wait_for_each_other() -> None:
    """All of them block until the last one has come: two threads, as the package has for its own work, would never end."""
    together = threading.Barrier(16, timeout=60)

    class Meets(tau2_compat.load().UserSimulator):  # type: ignore[misc]
        def generate_next_message(self, message: Any, state: Any) -> Any:
            together.wait()
            return tau2_compat.load().UserMessage(role="user", content="here"), state

    async def all_at_once() -> list[Any]:
        users = [ThreadedTau2User("meets", Meets, context()) for _ in range(16)]
        for user in users:
            user.start([])
        return await asyncio.gather(*(user.reply(tau2_compat.load().FIRST_AGENT_MESSAGE) for user in users))

    assert [reply.content for reply in asyncio.run(all_at_once())] == ["here"] * 16


def test_a_cancelled_turn_stops_waiting_at_once() -> None:
    release = threading.Event()

    class Slow(tau2_compat.load().UserSimulator):  # type: ignore[misc]
        def generate_next_message(self, message: Any, state: Any) -> Any:
            release.wait(60)
            return tau2_compat.load().UserMessage(role="user", content="late"), state

    async def cancel() -> None:
        user = ThreadedTau2User("slow", Slow, context())
        user.start([])
        turn = asyncio.ensure_future(user.reply(tau2_compat.load().FIRST_AGENT_MESSAGE))
        await asyncio.sleep(0.05)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn

    asyncio.run(cancel())
    release.set()


def test_the_contract_is_what_the_simulators_do() -> None:
    """Both simulators of the package have the methods of the protocol, asynchronous where it is."""
    from tau2_slime.world.users import LitellmUser
    from tau2_slime.world.users.protocol import User

    for simulator in (LitellmUser, ThreadedTau2User):
        for name in ("start", "reply"):
            wanted, given = inspect.signature(getattr(User, name)), inspect.signature(getattr(simulator, name))
            assert list(wanted.parameters) == list(given.parameters)
        assert inspect.iscoroutinefunction(simulator.reply)
