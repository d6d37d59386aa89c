"""Whatever an endpoint sends costs little to read: bytes, packing, encoding, nesting and redirects are bounded."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tau2_slime.errors import EngineRejected, EngineUnavailable
from tau2_slime.runtime import connections, http, sessions
from tau2_slime.tokens.engine import SglangEngine

LIMIT = 2**20


class Endpoint:
    def __init__(self) -> None:
        self.will: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.path, dict(request.headers)))
        return web.Response(**self.will)


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    app = web.Application()
    app.router.add_post("/{anywhere:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/here"
    yield served
    await runner.cleanup()


@pytest.fixture(params=["kept connections", "aiohttp"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "aiohttp":
        monkeypatch.setattr(connections, "target", lambda *_, **__: None)


async def ask(endpoint: Endpoint, **will: Any) -> http.Answer:
    endpoint.will = will
    within = aiohttp.ClientTimeout(total=20)
    return await http.post(sessions.inside(), endpoint.url, {}, headers={}, within=within, max_bytes=LIMIT)


def deflated(data: bytes, wbits: int) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", lambda data: deflated(data, zlib.MAX_WBITS)),
    "deflate without a header": ("deflate", lambda data: deflated(data, -zlib.MAX_WBITS)),
    "not at all": ("identity", bytes),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("size", [0, 10, LIMIT - 2])
async def test_an_answer_comes_whole_however_it_is_packed(endpoint: Endpoint, packing: str, size: int) -> None:
    name, pack = PACKED[packing]
    words = '"' + "ä" * (size // 2)
    answer = await ask(endpoint, body=pack(words.encode()), headers={"Content-Encoding": name})
    assert (answer.status, answer.text) == (200, words)


@pytest.mark.parametrize("packing", PACKED)
async def test_no_more_is_read_than_allowed(endpoint: Endpoint, packing: str) -> None:
    """40 MB that are 40 kB on the wire: neither the memory nor the event loop may notice."""
    name, pack = PACKED[packing]
    body = pack(b" " * 40_000_000)
    longest, last = 0.0, time.thread_time()  # of this thread alone: the machine has other things to do

    async def beat() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    beating = asyncio.ensure_future(beat())
    with pytest.raises(http.AnswerRefused, match="longer than 1 MiB"):
        await ask(endpoint, body=body, headers={"Content-Encoding": name})
    beating.cancel()
    assert longest < 0.5


@pytest.mark.parametrize(
    ("packing", "body"),
    [("br", b"x"), ("zstd", b"x"), ("gzip", b"this is no gzip"), ("deflate", b"\xff\xff\xff"), ("gzip, gzip", b"x")],
)
async def test_what_cannot_be_unpacked_is_refused(endpoint: Endpoint, packing: str, body: bytes) -> None:
    with pytest.raises(http.AnswerRefused):
        await ask(endpoint, body=body, headers={"Content-Encoding": packing})


@pytest.mark.parametrize("charset", ["rot13", "base64", "zip", "undefined", "punycode", "idna", "utf-16", "nonsense"])
async def test_answers_are_utf_8_whatever_they_call_themselves(endpoint: Endpoint, charset: str) -> None:
    kind = {"Content-Type": f"application/json; charset={charset}"}
    assert (await ask(endpoint, body='{"a": "ä"}'.encode(), headers=kind)).text == '{"a": "ä"}'
    assert (await ask(endpoint, body=b"\xff{}", headers=kind)).text == "\ufffd{}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_told_and_not_followed(endpoint: Endpoint, status: int) -> None:
    with pytest.raises(http.Redirected, match=r"http://elsewhere:81\. Redirects are not followed") as caught:
        await ask(
            endpoint, status=status, headers={"Location": "http://user:secret-word@elsewhere:81/v1?key=secret-word"}
        )
    assert "secret-word" not in str(caught.value)
    assert [path for path, _ in endpoint.seen] == ["/here"]


async def test_a_cookie_is_not_kept(endpoint: Endpoint) -> None:
    await ask(endpoint, headers={"Set-Cookie": "who=you"})
    await ask(endpoint)
    assert "Cookie" not in endpoint.seen[-1][1]


# ---- JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deep", [http.MAX_DEPTH + 1, 600, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_that_nests_deeply_is_refused(deep: int, opening: str, closing: str) -> None:
    with pytest.raises(ValueError, match="nested"):
        http.read_json(opening * deep + "1" + closing * deep)
    shallow = opening * 30 + "1" + closing * 30
    assert http.read_json(shallow) == json.loads(shallow)


def test_json_of_very_many_pieces_is_refused() -> None:
    many = json.dumps([0] * (http.MAX_PIECES + 1))
    with pytest.raises(ValueError, match="pieces"):
        http.read_json(many)
    assert http.read_json(many, max_pieces=None) == json.loads(many)


@pytest.mark.parametrize("text", ["", "<html>", "{", "1" * 5000, '{"a": }'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        http.read_json(text)


# ---- the policy's router -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("will", "error", "words"),
    [
        ({"body": b" " * 40_000_000}, EngineUnavailable, "longer than"),
        ({"body": b"{}", "headers": {"Content-Encoding": "br"}}, EngineUnavailable, "packed as 'br'"),
        ({"body": b'{"meta_info": ' + b"[" * 600 + b"]" * 600 + b"}"}, EngineUnavailable, "not JSON"),
        ({"status": 307, "headers": {"Location": "http://elsewhere/generate"}}, EngineRejected, "Redirects are not"),
    ],
    ids=["long", "packed", "deep", "redirect"],
)
async def test_a_router_is_read_within_the_same_bounds(
    endpoint: Endpoint, will: dict[str, Any], error: type[Exception], words: str
) -> None:
    endpoint.will = will
    engine = SglangEngine(endpoint.url.removesuffix("/here"), retries=0)
    with pytest.raises(error, match=words):
        await engine.generate([1, 2, 3], {"max_new_tokens": 16}, routing_key="e")
    assert len(endpoint.seen) == 1
