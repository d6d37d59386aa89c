"""Kept connections: an answer belongs to its request, whatever a server sends, and nothing stays open that was given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tau2_slime.runtime import connections, http, sessions

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
WITHIN = aiohttp.ClientTimeout(total=5, sock_connect=5)


class Server:
    """It answers each request on a connection with the next of ``answers``, then goes on as it began."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.close_after = False
        self.connections = 0
        self.gone = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                writer.write(self.answers.pop(0) if self.answers else OK)
                await writer.drain()
                if self.close_after:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone += 1
        finally:
            writer.close()

    async def ask(self, **options: Any) -> http.Answer:
        return await http.post(sessions.inside(), self.url, {"a": 1}, headers={}, within=WITHIN, **options)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
    yield served
    listening.close()


async def test_a_connection_serves_many_requests(server: Server) -> None:
    assert [(await server.ask()).text for _ in range(5)] == ["ok"] * 5
    assert server.connections == 1


async def test_requests_at_once_have_connections_of_their_own(server: Server) -> None:
    await asyncio.gather(*(server.ask() for _ in range(5)))
    assert server.connections == 5
    await asyncio.gather(*(server.ask() for _ in range(5)))
    assert server.connections == 5


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwh\r\n3\r\nole\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwhole",
        b"HTTP/1.0 200 OK\r\n\r\nwhole",
    ],
    ids=["interim", "chunked", "until the end", "1.0"],
)
async def test_an_answer_is_whole_however_its_end_is_told(server: Server, answer: bytes) -> None:
    server.answers, server.close_after = [answer], b"chunked" not in answer
    assert (await server.ask()).text == "whole"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: " + b"a" * connections._MAX_HEAD,
    ],
    ids=["half a body", "half a chunk", "half a head", "nothing", "another protocol", "an endless head"],
)
async def test_what_is_not_an_answer_is_none(server: Server, answer: bytes) -> None:
    server.answers, server.close_after = [answer], True
    with pytest.raises(http.NoAnswer):
        await server.ask()
    server.close_after = False
    assert (await server.ask()).text == "ok"


async def test_what_comes_unasked_answers_nothing(server: Server) -> None:
    wrong = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    server.answers = [OK + wrong]
    assert (await server.ask()).text == "ok"
    await asyncio.sleep(0.05)
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"]
    assert (await server.ask()).text == "right"


@pytest.mark.parametrize(
    "rest",
    [b"garbage", b"HTTP/1.1 2", OK[:-1], b"HTTP/1.1 200 OK\r\nX-Other: 1\r\nContent-Length: 5\r\n\r\nwr", OK + OK[:-1]],
    ids=["garbage", "half a line", "nearly an answer", "half an answer", "more than an answer"],
)
async def test_a_connection_with_more_than_its_answer_is_not_used_again(server: Server, rest: bytes) -> None:
    server.answers = [OK + rest]
    first = await server.ask()
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright"]
    assert (first.text, (await server.ask()).text) == ("ok", "right")
    assert "X-Other" not in first.headers
    assert (server.connections, server.gone) == (2, 1)


async def test_a_server_that_lets_nobody_in_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_connection", lambda *_: asyncio.sleep(60))
    within = aiohttp.ClientTimeout(total=5, sock_connect=0.05)
    with pytest.raises(http.NoAnswer, match=r"no connection within 0\.05 s"):
        await http.post(sessions.inside(), "http://127.0.0.1:9/x", {}, headers={}, within=within)


@pytest.mark.parametrize("host", ["router..svc", "a" * 64], ids=["an empty label", "a long label"])
async def test_a_name_that_no_server_can_have_is_no_answer(host: str) -> None:
    with pytest.raises(http.NoAnswer):
        await http.post(sessions.inside(), f"http://{host}:9/x", {}, headers={}, within=WITHIN)


async def test_an_answer_that_is_too_long_is_not_read_to_its_end(server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 100_000]
    with pytest.raises(http.AnswerRefused, match="longer than"):
        await server.ask(max_bytes=1000)
    assert (await server.ask()).text == "ok"


async def test_a_request_that_was_given_up_closes_its_connection(server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\n"]
    asked = asyncio.ensure_future(server.ask())
    await asyncio.sleep(0.05)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert (await server.ask()).text == "ok"
    assert (server.connections, server.gone) == (2, 1)


async def test_a_request_that_was_given_up_before_it_was_sent_closes_its_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, waits = 0, asyncio.Event()

    async def take_turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:  # the connection is there, and many other episodes want to work
            waits.set()
            await asyncio.sleep(60)

    monkeypatch.setattr(connections.beside[sessions.inside()], "_take_turn", take_turn)
    asked = asyncio.ensure_future(server.ask())
    await waits.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await asyncio.sleep(0.05)
    assert (server.connections, server.gone) == (1, 1)


def test_idle_connections_are_closed_after_a_while_and_with_their_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Server()

    async def play() -> None:
        listening = await asyncio.start_server(served.serve, "127.0.0.1", 0)
        served.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/x"
        await asyncio.gather(*(served.ask() for _ in range(3)))
        monkeypatch.setattr(connections, "KEPT", 0.0)
        await served.ask()
        await asyncio.sleep(0.05)
        assert (served.connections, served.gone) == (4, 3)
        listening.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    ("url", "environ", "plain"),
    [
        ("http://127.0.0.1:30000/generate", {}, True),
        ("http://[::1]:30000/v1/chat/completions", {}, True),
        ("http://router/generate", {"http_proxy": "http://proxy:1"}, False),
        ("http://router/generate", {"http_proxy": "http://proxy:1", "no_proxy": "router"}, True),
        ("https://api.openai.com/v1/chat/completions", {}, False),
        ("http://user:word@router/generate", {}, False),
        ("http://router:99999/generate", {}, False),
        ("http://router/generate?a=b", {}, False),
    ],
)
def test_only_plain_requests_go_this_way(
    url: str, environ: dict[str, str], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (connections.target(url, {}, through_proxies=True) is not None) == plain


@pytest.mark.parametrize("value", ["Bearer a\r\nX: b", "Bearer ü"])
def test_a_header_that_is_not_plain_goes_the_long_way(value: str) -> None:
    assert connections.target("http://router/generate", {"Authorization": value}, through_proxies=False) is None
