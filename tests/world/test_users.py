"""The user simulator is τ²'s own, awaited: same prompt, same message, and its failures are its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tau2_slime.chat import faults
from tau2_slime.config.simulators import Price
from tau2_slime.episode.history import dump_messages, load_messages
from tau2_slime.errors import ConfigError, UserAuthenticationError, UserSimulatorError
from tau2_slime.runtime.http import write_json
from tau2_slime.world import domains, tau2_compat, users
from tau2_slime.world.environment import World
from tau2_slime.world.users import LitellmUser, UserSpec, completion
from tests.clock import forward
from tests.fresh import forget_users

MODEL = "openai/test"

# One event loop for all: litellm keeps clients by the id of their loop, and a new loop may get the id of a closed one.
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Server:
    """An OpenAI-compatible endpoint that does what it is told, request by request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.keys: list[str] = []
        self.plan: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self._asked = asyncio.Event()
        self.in_flight = self.peak = 0
        self.url = ""

    def will(self, *plan: dict[str, Any]) -> None:
        """The next answers; the last one is repeated."""
        self.plan = list(plan)

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.requests.append(json.loads(self.bodies[-1]))
        self.keys.append(request.headers["Authorization"])
        self._asked.set()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self.open.wait()
        finally:
            self.in_flight -= 1
        step = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        if "status" in step:
            body = {"error": {"message": "no", "type": "x", "code": "x"}}
            return web.json_response(body, status=step["status"], headers=step.get("headers"))
        if "raw" in step:
            return web.Response(text=step["raw"], content_type="application/json")
        message = {"role": "assistant", "content": step.get("content")}
        if "calls" in step:
            message["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(step["calls"])
            ]
        return web.json_response(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "test",
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
            }
        )

    async def wait_for_requests(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.requests) < count:
                self._asked.clear()
                await self._asked.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def server() -> AsyncIterator[Server]:
    tau2_compat.load()  # before the first request, so that no time-out pays for the import
    users.simulator._limits.pop()
    forget_users()
    endpoint = Server()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    endpoint.url = f"http://127.0.0.1:{port}/v1"
    yield endpoint
    endpoint.open.set()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users.simulator, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(users.simulator, "BACKOFF_MAX", 0.002)


def user_for(server: Server, *, tools: list[Any] | None = None, **spec: Any) -> LitellmUser:
    spec.setdefault("args", {"temperature": 0.0})
    user = LitellmUser(UserSpec(MODEL, base_url=server.url, **spec), tools=tools, instructions="You want a refund.")
    user.start([])
    return user


def greeting() -> Any:
    return tau2_compat.load().FIRST_AGENT_MESSAGE.model_copy()


# ---- the same prompt, the same message -----------------------------------------------------------------------------------

Make = Callable[..., Any]


def telecom() -> tuple[Any, list[Any]]:
    task = domains.tasks("telecom", "small")[0]
    tools = World("telecom", "small", task).user_tools
    assert tools
    return task, tools


async def test_the_simulator_asks_and_answers_as_tau2s_own(server: Server) -> None:
    """A dual-control conversation, once with τ²'s simulator and once with ours, against the same endpoint."""
    t = tau2_compat.load()
    task, tools = telecom()
    instructions = str(task.user_scenario)
    plan = [
        {"content": "My phone has no signal."},
        {"content": None, "calls": [("check_status_bar", "{}"), ("check_network_status", "{}")]},
        {"content": "One more.", "calls": [("toggle_airplane_mode", "{}")]},
        {"content": "It works. ###STOP###"},
    ]
    said = [
        greeting(),
        t.AssistantMessage(role="assistant", content="What does it show?"),
        t.MultiToolMessage(
            role="tool",
            tool_messages=[
                t.ToolMessage(role="tool", id=f"call_{i}", content=f"result {i}", requestor="user") for i in range(2)
            ],
        ),
        t.ToolMessage(role="tool", id="call_0", content="Error: no", requestor="user", error=True),
    ]

    def theirs() -> list[Any]:
        simulator = t.UserSimulator(
            tools=tools,
            instructions=instructions,
            llm=MODEL,
            llm_args={"temperature": 0.0, "api_base": server.url, "api_key": "none"},
        )
        state, replies = simulator.get_init_state(), []
        for message in said:
            reply, state = simulator.generate_next_message(message.model_copy(deep=True), state)
            replies.append(reply)
        return replies

    server.will(*plan)
    expected = await asyncio.to_thread(theirs)
    asked_by_tau2, server.requests = server.requests, []

    server.will(*plan)
    user = LitellmUser(
        UserSpec(MODEL, base_url=server.url, args={"temperature": 0.0}), tools=tools, instructions=instructions
    )
    user.start([])
    replies = [await user.reply(message.model_copy(deep=True)) for message in said]

    assert len(asked_by_tau2) == 4 and server.requests == asked_by_tau2
    assert [m["role"] for m in server.requests[-1]["messages"]][:4] == ["system", "user", "assistant", "user"]
    assert server.requests[0]["tools"] and server.requests[0]["tool_choice"] == "auto"
    assert replies == expected
    assert [reply.usage for reply in replies] == [reply.usage for reply in expected]
    assert [call.requestor for call in replies[1].tool_calls] == ["user", "user"]
    assert t.UserSimulator.is_stop(replies[-1])
    assert user.stats.calls == 4 and user.stats.retries == 0


async def test_a_user_without_tools_is_asked_without_tools(server: Server) -> None:
    server.will({"content": "hi"})
    await user_for(server).reply(greeting())
    assert "tools" not in server.requests[0] and "tool_choice" not in server.requests[0]
    assert "You want a refund." in server.requests[0]["messages"][0]["content"]


async def test_the_simulator_goes_on_after_a_history(server: Server) -> None:
    t = tau2_compat.load()
    server.will({"content": "and then?"})
    user = user_for(server)
    history = [greeting(), t.UserMessage(role="user", content="I said this before.")]
    user.start(history)
    await user.reply(t.AssistantMessage(role="assistant", content="Go on."))
    assert [m["content"] for m in server.requests[0]["messages"][1:]] == [
        greeting().content,
        "I said this before.",
        "Go on.",
    ]
    assert len(history) == 2, "the caller's list is not the simulator's"


async def test_arguments_of_the_configuration_reach_the_endpoint(server: Server) -> None:
    server.will({"content": "hi"})
    await user_for(server, args={"temperature": 0.7, "max_tokens": 55, "seed": 3}).reply(greeting())
    request = server.requests[0]
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.7, 55, 3)


async def test_a_model_without_a_price_costs_nothing(server: Server) -> None:
    server.will({"content": "hi"})
    user = user_for(server)
    reply = await user.reply(greeting())
    assert user.stats.cost == 0.0 and not reply.cost
    assert user.stats.seconds > 0


async def test_what_a_provider_wants_back_survives_an_interruption_and_stays_with_its_provider(server: Server) -> None:
    """Of a raw reply, an interrupted episode takes along only this; another simulator's endpoint must not see it."""
    t = tau2_compat.load()
    _, tools = telecom()
    call = {
        "id": "a",
        "type": "function",
        "function": {"name": "check_status_bar", "arguments": "{}"},
        "extra_content": 1,
    }
    message = {"role": "assistant", "content": None, "reasoning_content": "I look.", "tool_calls": [call]}
    server.will({"raw": json.dumps({"choices": [{"message": message, "logprobs": [0] * 50}]})}, {"content": "hi"})
    first = user_for(server, tools=tools)
    reply = await first.reply(greeting())
    dumped = json.loads(json.dumps(dump_messages([greeting(), reply])))
    assert "logprobs" not in str(dumped)
    for name, sent_back in (("", True), ("another", False)):
        again = user_for(server, tools=tools, name=name)
        again.start(load_messages(dumped))
        await again.reply(t.ToolMessage(role="tool", id="a", content="4 bars", requestor="user"))
        (turn,) = [m for m in server.requests[-1]["messages"] if m.get("tool_calls")]
        assert (turn.get("reasoning_content") == "I look.") is sent_back
        assert ("extra_content" in turn["tool_calls"][0]) is sent_back


async def test_a_message_is_written_once_however_often_it_is_sent(server: Server, json_written: list[int]) -> None:
    """What a reply writes as JSON is the same after 60 turns as after 10, and the request is what one would write whole."""
    thoughts = {"role": "assistant", "content": "Where is #W0000000?", "reasoning_content": "I ask. " * 50}
    server.will({"raw": json.dumps({"choices": [{"finish_reason": "stop", "message": thoughts}]})})
    user, costs = user_for(server, tools=telecom()[1]), []
    for turn in range(60):
        json_written.clear()
        await user.reply(tau2_compat.load().AssistantMessage(role="assistant", content=f"{turn:02} " * 300))
        costs.append(sum(json_written))
    assert costs[59] == costs[9] < len(server.bodies[59]) / 3
    assert len(server.requests[59]["messages"]) == 120  # the system prompt, 60 messages of the agent, 59 of the user
    assert all(one["reasoning_content"] for one in server.requests[59]["messages"] if one["role"] == "assistant")
    assert server.bodies[59] == write_json(server.requests[59])


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        {"status": 429},
        {"status": 500},
        {"status": 503},
        {"content": ""},
        {"content": " \n"},
        {"content": None},
        {"content": None, "calls": [("refund", "{}")]},
        {"raw": "<html>busy</html>"},
        {"raw": '{"choices": []}'},
    ],
    ids=lambda step: json.dumps(step),
)
async def test_one_bad_answer_is_followed_by_another_try(server: Server, first: dict[str, Any]) -> None:
    server.will(first, {"content": "sorry, hi"})
    user = user_for(server)
    assert (await user.reply(greeting())).content == "sorry, hi"
    assert (user.stats.calls, user.stats.retries) == (2, 1)
    assert len(server.requests) == 2 and server.requests[0] == server.requests[1]


@pytest.mark.parametrize("arguments", ["{not json", "[1]", "null", '"text"', '{"a": 1'])
async def test_tool_arguments_that_are_no_object_are_asked_for_again(server: Server, arguments: str) -> None:
    _, tools = telecom()
    server.will({"content": None, "calls": [("check_status_bar", arguments)]}, {"content": "hi"})
    assert (await user_for(server, tools=tools).reply(greeting())).content == "hi"


async def test_a_user_that_never_says_anything_is_the_users_failure(server: Server) -> None:
    server.will({"content": ""})
    with pytest.raises(UserSimulatorError, match="empty message"):
        await user_for(server, retries=2).reply(greeting())
    assert len(server.requests) == 3


async def test_a_status_between_an_answer_and_an_error_is_garbage(server: Server) -> None:
    server.will({"status": 300}, {"content": "hi"})
    user = user_for(server)
    await user.reply(greeting())
    assert user.stats.faults == {"garbage": 1}


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_what_another_try_cannot_cure_is_not_tried_again(server: Server, status: int) -> None:
    server.will({"status": status})
    user = user_for(server)
    with pytest.raises(UserSimulatorError, match=MODEL):
        await user.reply(greeting())
    assert (user.stats.calls, user.stats.retries) == (1, 0)
    assert len(server.requests) == 1


async def test_an_endpoint_that_does_not_answer_times_out(server: Server) -> None:
    server.open.clear()
    server.will({"content": "too late"})
    reply = asyncio.ensure_future(user_for(server, timeout=60, retries=1).reply(greeting()))
    for tries in (1, 2):
        await server.wait_for_requests(tries)
        forward(61)
    with pytest.raises(UserSimulatorError, match=r"(?i)no answer within 60 s|timeout|timed out"):
        await reply
    assert len(server.requests) == 2


async def test_an_endpoint_that_is_not_there_is_the_users_failure() -> None:
    user = LitellmUser(UserSpec(MODEL, base_url="http://127.0.0.1:9/v1", retries=1), tools=None, instructions="x")
    user.start([])
    with pytest.raises(UserSimulatorError, match="2 tries"):
        await user.reply(greeting())


# ---- many at once ----------------------------------------------------------------------------------------------------


async def test_no_more_calls_are_in_flight_than_allowed(server: Server) -> None:
    server.open.clear()
    server.will({"content": "hi"})
    replies = [asyncio.ensure_future(user_for(server, concurrency=3).reply(greeting())) for _ in range(12)]
    await server.wait_for_requests(3)
    await asyncio.sleep(0.05)
    assert server.in_flight == 3
    server.open.set()
    assert [reply.content for reply in await asyncio.gather(*replies)] == ["hi"] * 12
    assert server.peak == 3


async def test_the_loop_runs_on_while_the_simulator_thinks(server: Server) -> None:
    """The endpoint lives in this loop and answers only after a hundred turns of it: a blocked loop would never end."""
    server.open.clear()
    server.will({"content": "hi"})
    reply = asyncio.ensure_future(user_for(server).reply(greeting()))
    await server.wait_for_requests(1)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not reply.done()
    server.open.set()
    assert (await reply).content == "hi"


async def test_a_cancelled_reply_gives_its_place_back(server: Server) -> None:
    server.open.clear()
    server.will({"content": "hi"})
    first = asyncio.ensure_future(user_for(server, concurrency=1).reply(greeting()))
    await server.wait_for_requests(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.open.set()
    assert (await user_for(server, concurrency=1).reply(greeting())).content == "hi"


# ---- keys ------------------------------------------------------------------------------------------------------------


async def test_the_key_is_read_from_the_named_variable_at_every_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.will({"content": "hi"})
    user = user_for(server, api_key_var="MY_USER_KEY")
    with pytest.raises(ConfigError, match="MY_USER_KEY"):
        await user.reply(greeting())
    assert not server.requests
    for key in ("first-key", "second-key"):
        monkeypatch.setenv("MY_USER_KEY", key)
        await user.reply(greeting())
    assert server.keys == ["Bearer first-key", "Bearer second-key"]
    assert "first-key" not in repr(vars(user)) and "first-key" not in repr(user.spec)


async def test_a_refused_key_is_not_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_USER_KEY", "top-secret-key")
    server.will({"status": 401})
    with pytest.raises(UserAuthenticationError, match="MY_USER_KEY") as caught:
        await user_for(server, api_key_var="MY_USER_KEY").reply(greeting())
    assert "top-secret-key" not in str(caught.value)


async def test_an_endpoint_of_ones_own_needs_no_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "must-not-leave")
    server.will({"content": "hi"})
    await user_for(server).reply(greeting())
    assert "must-not-leave" not in server.keys[0]


@pytest.mark.parametrize("model", ["gpt-4o-mini", "openai/gpt-4o-mini"])
async def test_openai_needs_its_key(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*user_api_key_var"):
        UserSpec(model).connection()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert UserSpec(model).connection() == {"api_base": "https://api.openai.com/v1", "api_key": "k"}


async def test_other_providers_are_left_to_litellm() -> None:
    assert UserSpec("anthropic/claude-x").connection() == {}
    assert users.provider_of("claude-haiku-4-5") == "anthropic"
    assert users.provider_of("a-model-that-nobody-knows") == "openai"


@pytest.mark.parametrize("model", ["Qwen/Qwen3-4B", "my-own-model", "openai/test", "hosted_vllm/Qwen/Qwen3-4B"])
async def test_an_endpoint_of_ones_own_may_serve_any_name(
    server: Server, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.will({"content": "hi"})
    user = LitellmUser(UserSpec(model, base_url=server.url), tools=None, instructions="x")
    user.start([])
    assert (await user.reply(greeting())).content == "hi"
    assert server.requests[0]["model"] == model.removeprefix("openai/").removeprefix("hosted_vllm/")
    assert "Provider List" not in capsys.readouterr().out


# ---- asked directly, or through litellm --------------------------------------------------------------------------------

THROUGH_LITELLM = {"extra_headers": {"X-Asked": "through litellm"}}
"""An argument that litellm has a meaning of its own for: then it makes the call."""


@pytest.mark.parametrize(
    "step",
    [
        {"content": "hi"},
        {"content": "beside", "calls": [("check_status_bar", "{}"), ("toggle_airplane_mode", '{"a": [1, null]}')]},
        {"content": None, "calls": [("check_status_bar", "")]},
        {"raw": json.dumps({"model": "m", "choices": [{"message": {"role": "assistant", "content": "no usage"}}]})},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "in parts"}]},
        {"content": "[THINK]hm[/THINK]aloud"},
    ],
    ids=lambda step: json.dumps(step)[:40],
)
async def test_both_ways_ask_and_understand_the_same(server: Server, step: dict[str, Any]) -> None:
    _, tools = telecom()
    replies, users_ = [], []
    for extra in ({}, THROUGH_LITELLM):
        server.will(step)
        user = user_for(server, tools=tools, args={"temperature": 0.5, "stop": ["x"], **extra})
        assert completion.is_direct(user.spec) == (not extra)
        replies.append(await user.reply(greeting()))
        users_.append(user)
    directly, through_litellm = server.requests
    assert directly == through_litellm
    said = [reply.model_dump(exclude={"timestamp", "raw_data"}) for reply in replies]
    assert said[0] == said[1]
    counted = [(u.stats.prompt_tokens, u.stats.completion_tokens, u.stats.cost, u.stats.faults) for u in users_]
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        ({"status": 429}, "rate_limit"),
        ({"status": 503}, "unavailable"),
        ({"raw": '{"choices": [], "model": "m"}'}, "garbage"),
        ({"raw": '{"error": {"message": "slow down", "code": 429}}'}, "rate_limit"),
        ({"raw": '{"error": {"message": "busy", "code": 503}}'}, "unavailable"),
        ({"raw": json.dumps({"choices": [{"finish_reason": "length", "message": {"content": "Please cre"}}]})}, "cut"),
        ({"raw": '{"choices": [{"message": {"role": "assistant", "content": ""}}]}'}, "garbage"),
    ],
    ids=lambda step: json.dumps(step)[:40],
)
async def test_both_ways_know_what_failed(server: Server, first: dict[str, Any], fault: str) -> None:
    for extra in ({}, THROUGH_LITELLM):
        server.will(first, {"content": "hi"})
        user = user_for(server, args=dict(extra))
        assert (await user.reply(greeting())).content == "hi"
        assert user.stats.faults == {fault: 1}


@pytest.mark.parametrize("extra", [{}, THROUGH_LITELLM], ids=["directly", "through litellm"])
async def test_a_request_that_cannot_be_processed_is_not_repeated(server: Server, extra: dict[str, Any]) -> None:
    server.will({"status": 422})
    user = user_for(server, args=dict(extra))
    with pytest.raises(UserSimulatorError):
        await user.reply(greeting())
    assert (user.stats.faults, user.stats.calls) == ({"rejected": 1}, 1)


async def test_what_litellm_raises_is_the_providers_and_a_mistake_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import litellm

    raised: list[Exception] = [litellm.exceptions.RateLimitError("slow", "openai", "m"), KeyError("oops")]
    asked: list[dict[str, Any]] = []

    async def fail(**request: Any) -> Any:
        asked.append(request)
        raise raised.pop(0)

    monkeypatch.setattr(litellm, "acompletion", fail)
    user = user_for(server, args=dict(THROUGH_LITELLM))
    with pytest.raises(KeyError, match="oops"):
        await user.reply(greeting())
    assert user.stats.faults == {"rate_limit": 1} and user.stats.calls == 2
    for request in asked:  # every try is this package's own, and no cache repeats one user for every sample
        assert (request["num_retries"], request["max_retries"], request["caching"]) == (0, 0, False)


async def test_the_key_of_a_file_with_a_last_line_break_is_sent_without_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_USER_KEY", "a-key\n")
    server.will({"content": "hi"})
    await user_for(server, api_key_var="MY_USER_KEY").reply(greeting())
    assert server.keys == ["Bearer a-key"]


@pytest.mark.parametrize(
    ("spec", "direct"),
    [
        (UserSpec("openai/local", base_url="http://10.0.0.1:8000/v1"), True),
        (UserSpec("Qwen/Qwen3-4B", base_url="http://10.0.0.1:8000/v1"), True),
        (UserSpec("hosted_vllm/Qwen/Qwen3-4B", base_url="https://x/v1", args={"top_k": 20, "seed": 1}), True),
        (UserSpec("openai/local"), False),
        (UserSpec("gpt-4o-mini", base_url="http://a-proxy/v1"), False),
        (UserSpec("openai/gpt-4o", base_url="http://a-proxy/v1"), False),
        (UserSpec("openai/a-team/gpt-4o", base_url="http://a-proxy/v1"), False),
        (UserSpec("anthropic/claude-x", base_url="http://a-proxy/v1"), False),
        (UserSpec("openai/local", base_url="sglang:user"), False),
        (UserSpec("openai/local", base_url="http://x/v1", args={"extra_headers": {"a": "b"}}), False),
        (UserSpec("openai/local", base_url="http://x/v1", args={"mock_response": "hi"}), False),
    ],
)
def test_who_is_asked_directly(spec: UserSpec, direct: bool) -> None:
    assert completion.is_direct(spec) == direct


def test_a_call_of_gemini_leaves_nothing_that_slows_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from litellm.caching import Cache

    from tau2_slime.world.litellm_client import load_litellm

    litellm = load_litellm()
    for name in ("success_callback", "input_callback", "_async_success_callback"):
        monkeypatch.setattr(litellm, name, list(getattr(litellm, name)))
    monkeypatch.setattr(litellm, "cache", None)
    spec = UserSpec("openai/mine", base_url="http://127.0.0.1:9/v1")
    made = Cache(type="local")  # what its Gemini client makes for itself
    assert "cache" in litellm.success_callback
    assert completion.is_direct(spec)
    monkeypatch.setattr(litellm, "cache", made)
    assert not completion.is_direct(spec)


async def test_whoever_watches_litellms_calls_sees_them(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import litellm

    spec = user_for(server).spec
    assert completion.is_direct(spec)
    for name, value in (("success_callback", ["langfuse"]), ("ssl_verify", False)):
        with monkeypatch.context() as patch:
            patch.setattr(litellm, name, value)
            assert not completion.is_direct(spec)
    assert completion.is_direct(spec)


async def test_an_answer_that_litellm_cannot_read_has_its_price(server: Server) -> None:
    server.will({"content": [{"type": "text", "text": "in parts"}]})
    user = LitellmUser(UserSpec("openai/gpt-4o-mini", base_url=server.url), tools=None, instructions="x")
    user.start([])
    assert (await user.reply(greeting())).content == "in parts"
    assert user.stats.cost == pytest.approx((11 * 0.15 + 3 * 0.60) / 1e6)


async def test_a_price_of_ones_own_is_charged_for_direct_calls(server: Server) -> None:
    server.will({"content": "hi"})
    user = user_for(server, price=Price(input=2.0, output=10.0))
    await user.reply(greeting())
    assert user.stats.cost == pytest.approx((11 * 2 + 3 * 10) / 1e6)


async def test_retry_after_is_heard_on_direct_calls(server: Server) -> None:
    server.will({"status": 429, "headers": {"Retry-After": "7"}})
    with pytest.raises(faults.CallFailed) as caught:
        await completion.complete(user_for(server).spec, [], None)
    assert (caught.value.fault, caught.value.retry_after) == (faults.Fault.RATE_LIMIT, 7.0)
