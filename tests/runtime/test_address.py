"""A router's address, as it is typed and as slime has it."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.runtime import http, sessions
from tau2_slime.runtime.address import address, answers

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def listens(host: str) -> bool:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_what_answers_before_the_run_answers_in_it(host: str) -> None:
    if not listens(host):
        pytest.skip(f"this machine has no address {host}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(2**16):
            writer.write(OK)
        writer.close()

    async with await asyncio.start_server(serve, host, 0) as server:
        port = server.sockets[0].getsockname()[1]
        router = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        ip, number = address(router)
        await answers(ip, number)
        # As `request.setup_from_slime` writes it, from slime's arguments.
        url, within = f"http://{ip}:{number}/generate", aiohttp.ClientTimeout(total=5)
        assert url == f"{router}/generate"
        assert (await http.post(sessions.inside(), url, {}, headers={}, within=within)).text == "ok"


async def test_nothing_there_is_told_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match=f"nothing answers at http://127.0.0.1:{port} .*; is the router there"):
        await answers("127.0.0.1", port)
    for wrong in ("127.0.0.1:30000", "https://127.0.0.1:30000", "http://127.0.0.1", "http://"):
        with pytest.raises(ConfigError, match="give http://host:port"):
            address(wrong)
