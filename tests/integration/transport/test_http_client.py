# SPDX-License-Identifier: Apache-2.0
"""Our HTTP client against servers that do as they like."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme

from cocos._patience import may_pass
from cocos.clients import _http
from cocos.clients._http import HttpServer
from cocos.errors import ConfigError, PeerError, ProtocolError, UnreachableError, UntrustedError

pytestmark = pytest.mark.integration

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """A server that answers every request of a connection with the next script."""

    def __init__(self, *scripts: bytes | None, close: bool = False) -> None:
        self.scripts = list(scripts)
        self.close = close
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                if script is None:
                    await reader.read()  # never answers
                    break
                writer.write(script)
                await writer.drain()
                if self.close:
                    break
        writer.close()


@contextlib.asynccontextmanager
async def served(
    handler: Handler, *, tls: ssl.SSLContext | None = None, ca: str | None = None
) -> AsyncIterator[HttpServer]:
    running = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        await handler(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    url = f"http{'s' if tls else ''}://localhost:{port}/base"
    async with server:
        async with HttpServer(url, what="the KBS", user_agent="test/1", ca=ca) as client:
            yield client
        await asyncio.gather(*filter(None, running))


async def test_a_connection_is_used_again_and_the_request_is_complete() -> None:
    peer = Peer(
        GOOD,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\r\n"
        b"1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        GOOD,
    )
    async with served(peer) as client:
        bodies = [(await client.request("GET", "a b\r\nX: y/ä?q=1&r=%2f")).body]
        bodies.append((await client.request("POST", "p", content=b"12345")).body)
        answer = await client.request("GET", "c", headers={"Cookie": "s=1"})
        assert answer.headers.get_list("SET-Cookie") == ["a=1", "b=2"]
        assert (await client.request("POST", "d")).status == 204
        bodies += [answer.body, (await client.request("DELETE", "e")).body]
    assert bodies == [b"ok"] * 4
    assert peer.connections == 1
    first, posted, third, empty, _ = peer.requests
    assert first.startswith(
        b"GET /base/a%20b%0D%0AX:%20y/%C3%A4?q=1&r=%2f HTTP/1.1\r\nHost: localhost:"
    )
    assert b"\r\nUser-Agent: test/1\r\n" in first
    assert b"\r\nContent-Length: 5\r\n" in posted
    assert b"\r\nContent-Length: 0\r\n" in empty
    assert b"\r\nCookie: s=1\r\n" in third
    assert b"Content-Length" not in third


async def test_many_at_once_each_get_their_own_answer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                name = (await reader.readuntil(b"\r\n\r\n")).split()[1]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name) + name)
        writer.close()

    async with served(echo) as client:
        answers = await asyncio.gather(*(client.request("GET", str(n)) for n in range(200)))
    assert [answer.body for answer in answers] == [b"/base/%d" % n for n in range(200)]


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    peer = Peer(GOOD, close=True)
    async with served(peer) as client:
        for _ in range(5):
            assert (await client.request("GET", "a")).body == b"ok"
    assert peer.connections == 5


async def test_a_get_whose_connection_ends_unanswered_is_sent_once_more() -> None:
    count = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(GOOD)
            await reader.readuntil(b"\r\n\r\n")
            count += 1
        writer.close()

    async with served(handler) as client:
        await client.request("GET", "a")
        assert (await client.request("GET", "b")).body == b"ok"
        with pytest.raises(UnreachableError) as caught:
            await client.request("POST", "c", content=b"x")
    assert "it ended the connection" in str(caught.value.hint), "it may have been done"
    assert count == 2


@pytest.mark.parametrize(
    "script",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"SSH",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 2**18,
        b"\x16\x03\x01" + bytes(200),
    ],
)
async def test_what_is_no_answer(script: bytes) -> None:
    async with served(Peer(script, close=True)) as client:
        with pytest.raises(ProtocolError, match="is not the KBS"):
            await client.request("GET", "a")


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"HT",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
    ],
)
async def test_an_answer_that_is_cut_off_may_come_later(script: bytes) -> None:
    async with served(Peer(script, close=True)) as client:
        with pytest.raises(UnreachableError, match="Connection reset") as caught:
            await client.request("GET", "a")
    assert may_pass(caught.value)
    assert "it ended the connection" in str(caught.value.hint)


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with served(Peer(b"HTTP/1.0 200 OK\r\n\r\nok", close=True)) as client:
        assert (await client.request("GET", "a")).body == b"ok"


async def test_an_answer_that_comes_before_the_request_has_ended() -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        await reader.read(2**20)
        writer.close()

    async with served(early) as client:
        with contextlib.suppress(PeerError):  # a reset may overtake the answer
            answer = await client.request("POST", "a", content=bytes(16 * 2**20))
            assert answer.status == 413


async def test_too_much_and_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "MAX_ANSWER_BYTES", 10)
    async with served(Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + bytes(11))) as client:
        with pytest.raises(ProtocolError, match="more than 10 bytes"):
            await client.request("GET", "a")
    monkeypatch.setattr(_http, "ANSWER_SECONDS", 0.05)
    async with served(Peer(None)) as client:
        with pytest.raises(UnreachableError, match="in time"):
            await client.request("GET", "a")


async def test_who_is_not_there() -> None:
    async with served(Peer(GOOD)) as client:
        url = client.url
    async with HttpServer(url, what="the KBS", user_agent="test") as client:
        # localhost has two addresses; the reason is told once, without them.
        with pytest.raises(UnreachableError, match=r"reached: Connection refused$") as caught:
            await client.request("POST", "a")
        assert may_pass(caught.value)
        assert "is it running" in str(caught.value.hint)
    async with HttpServer("http://no.invalid", what="the KBS", user_agent="test") as client:
        with pytest.raises(
            UnreachableError, match=r"http://no\.invalid cannot be reached: \w"
        ) as no:
            await client.request("GET", "a")
        assert may_pass(no.value), "the network may not be there yet"
    async with HttpServer(f"http://{'a' * 100}", what="the KBS", user_agent="test") as client:
        with pytest.raises(ConfigError, match="names no host"):
            await client.request("GET", "a")


async def test_tls_is_checked() -> None:
    authority, other = trustme.CA(), trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(wrong)
    pem = authority.cert_pem.bytes().decode()
    async with served(Peer(GOOD), tls=tls, ca=pem) as client:
        for _ in range(2):
            assert (await client.request("GET", "a")).body == b"ok"
    for context, ca in (
        (tls, other.cert_pem.bytes().decode()),
        (tls, None),
        (wrong, pem),
    ):
        async with served(Peer(GOOD), tls=context, ca=ca) as client:
            with pytest.raises(UntrustedError, match="certificate of the KBS") as caught:
                await client.request("GET", "a")
            assert not may_pass(caught.value)

    async def at_once(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD)

    async with (
        served(at_once) as plain,
        HttpServer(plain.url.replace("http:", "https:"), what="the KBS", user_agent="t") as client,
    ):
        with pytest.raises(UntrustedError, match="does not speak TLS") as caught:
            await client.request("GET", "a")
    assert caught.value.hint == "http:// instead of https://?"
