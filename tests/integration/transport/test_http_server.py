# SPDX-License-Identifier: Apache-2.0
import asyncio
import resource
import select
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import structlog
import trustme
from cryptography.hazmat.primitives import serialization
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos.errors import ConfigError, UnreachableError
from cocos.tokens.ear import MAX_BYTES as MAX_TOKEN
from cocos.transport import http_server
from cocos.transport.http_server import serve_http
from cocos.transport.tls_files import TlsFiles
from cocos.transport.web import WebApp, health, json_response

pytestmark = pytest.mark.integration

LIMIT = 2**20


async def echo(request: Request) -> Response:
    return json_response({"size": len(await request.body()), "scheme": request.url.scheme})


APP = WebApp(
    [Route("/echo", echo, methods=["POST"]), Route("/healthz", health)], max_body_bytes=LIMIT
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> TlsFiles:
    issued = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "chain.pem", tmp_path / "key.pem")
    issued.private_key_pem.write_to_path(files.private_key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(files.certificate, append=True)
    return files


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_http_on_a_free_port() -> None:
    async with serve_http(APP, "127.0.0.1:0") as url, httpx.AsyncClient() as client:
        assert url.startswith("http://127.0.0.1:")
        answer = await client.post(f"{url}/echo", content=b"x" * LIMIT)
        assert answer.json() == {"size": LIMIT, "scheme": "http"}
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def test_ipv6() -> None:
    async with serve_http(APP, "[::1]:0") as url, httpx.AsyncClient() as client:
        assert url.startswith("http://[::1]:")
        assert (await client.get(f"{url}/healthz")).status_code == 200


async def test_https(tls: TlsFiles, trust: ssl.SSLContext) -> None:
    async with (
        serve_http(APP, "127.0.0.1:0", tls=tls) as url,
        httpx.AsyncClient(verify=trust) as client,
    ):
        answer = await client.post(f"{url}/echo", content=b"x")
        assert answer.json() == {"size": 1, "scheme": "https"}
        async with httpx.AsyncClient() as stranger:
            with pytest.raises(httpx.ConnectError):
                await stranger.get(url)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(url.replace("https", "http"))


async def test_old_tls_is_refused(tls: TlsFiles, trust: ssl.SSLContext) -> None:
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    async with (
        serve_http(APP, "127.0.0.1:0", tls=tls) as url,
        httpx.AsyncClient(verify=trust) as client,
    ):
        with pytest.raises(httpx.ConnectError):
            await client.get(url)


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 2**16):
        yield bytes(2**16)


@pytest.mark.parametrize("chunked", [False, True])
async def test_ten_megabytes_get_an_answer_not_a_reset(chunked: bool) -> None:
    size = 10 * 2**20
    async with serve_http(APP, "127.0.0.1:0") as url, httpx.AsyncClient() as client:
        body = chunks(size) if chunked else bytes(size)
        answer = await client.post(f"{url}/echo", content=body)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


async def test_running_requests_are_finished() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> Response:
        entered.set()
        await leave.wait()
        return json_response("done")

    async with httpx.AsyncClient() as client:
        async with serve_http(WebApp([Route("/slow", slow)]), "127.0.0.1:0") as url:
            call = asyncio.create_task(client.get(f"{url}/slow"))
            await entered.wait()
            asyncio.get_running_loop().call_soon(leave.set)
        assert (await call).json() == "done"


async def test_a_request_that_never_ends_does_not_hold_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "GRACE_SECONDS", 0.01)
    entered, never = asyncio.Event(), asyncio.Event()

    async def slow(_request: Request) -> Response:
        entered.set()
        await never.wait()
        return Response()

    async with serve_http(WebApp([Route("/slow", slow)]), "127.0.0.1:0") as url:
        client = httpx.AsyncClient()
        call = asyncio.create_task(client.get(f"{url}/slow"))
        await entered.wait()
    never.set()
    await asyncio.wait({call})
    await client.aclose()


# --- clients that do not do their part ---


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_HEADER_MILLISECONDS", 200)
    monkeypatch.setattr(http_server, "_STALL_MILLISECONDS", 200)


HASTY = WebApp(
    [
        Route("/echo", echo, methods=["POST"]),
        Route("/large", lambda _request: Response(bytes(16 * 2**20))),
        Route("/healthz", health),
    ],
    body_seconds=0.2,
)
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
BEARER = GET[:-2] + b"X: " + b"x" * 8192 + b"\r\nAuthorization: Bearer "


async def conversation(url: str, sent: bytes, *, half_close: bool = False) -> bytes:
    """Return all that a server says until it ends the connection."""
    reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
    try:
        writer.write(sent)
        await writer.drain()
        if half_close:
            writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET /healthz HTT", []),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", []),
        (GET, [b"200"]),  # and then nothing more
        (POST + b"Content-Length: 10\r\n\r\nabc", [b"400"]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", [b"400"]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", [b"400"]),
        (POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", [b"100", b"400"]),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", [b"400"]),
        (GET * 3, [b"200"] * 3),
        (GET + b"\x00\xff" * 500, [b"200", b"400"]),
        (b"\x16\x03\x01\x02\x00" * 9, [b"400"]),
        pytest.param(BEARER + b"a" * MAX_TOKEN + b"\r\n\r\n", [b"200"], id="largest token"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 600_000, [b"431"]),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: a\r\n" * 500 + b"\r\n", [b"431"]),
    ],
)
async def test_whatever_a_client_sends_the_conversation_ends(
    sent: bytes, statuses: list[bytes]
) -> None:
    async with serve_http(HASTY, "127.0.0.1:0") as url:
        said = await conversation(url, sent)
        assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == statuses


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("rest", [b"", b"abc", b"ab"])
async def test_a_client_that_has_closed_its_side_is_gone(rest: bytes) -> None:
    # Granian does not answer who has half closed; it must not wait for it, either.
    async with serve_http(HASTY, "127.0.0.1:0") as url:
        head = POST + b"Content-Length: 3\r\n\r\n" if rest else b""
        with structlog.testing.capture_logs() as lines:
            await conversation(url, head + rest, half_close=True)
            assert (await conversation(url, GET)).startswith(b"HTTP/1.1 200")
        assert not [line for line in lines if line["log_level"] == "error"]


@pytest.mark.usefixtures("hasty")
async def test_who_takes_nothing_of_an_answer_is_let_go() -> None:
    async with serve_http(HASTY, "127.0.0.1:0") as url:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            host, port = url.removeprefix("http://").split(":")
            client.connect((host, int(port)))
            client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            # The kernel drops its end without a word; asking whether it is there tells.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
            ended = select.poll()
            ended.register(client, 0)  # reports a reset, not data
            assert await asyncio.to_thread(ended.poll, 60_000)


@pytest.mark.usefixtures("hasty")
async def test_idle_connections_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_CONNECTIONS", 10)
    async with serve_http(HASTY, "127.0.0.1:0") as url:
        idle = [asyncio.create_task(conversation(url, b"GET")) for _ in range(40)]
        assert (await conversation(url, GET)).startswith(b"HTTP/1.1 200")
        assert set(await asyncio.gather(*idle)) == {b""}


def test_files_for_the_connections_are_asked_for() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
        room = http_server._room_for_connections()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert room + http_server._SPARE_FILES <= soft
        assert room > 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_taken_port_is_named() -> None:
    async with serve_http(APP, "127.0.0.1:0") as url:
        address = url.removeprefix("http://")
        with pytest.raises(UnreachableError, match=address) as caught:
            async with serve_http(APP, address):
                pass
    assert caught.value.hint == "is another program using it?"


async def test_a_foreign_address_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"192\.0\.2\.1:0") as caught:
        async with serve_http(APP, "192.0.2.1:0"):
            pass
    assert caught.value.hint is None


@pytest.mark.parametrize("broken", ["missing", "garbage", "foreign key", "encrypted key"])
async def test_certificates_that_do_not_fit_are_named(
    tls: TlsFiles, authority: trustme.CA, broken: str
) -> None:
    key = tls.private_key
    if broken == "missing":
        key.unlink()
    elif broken == "garbage":
        tls.certificate.write_bytes(b"garbage")
    elif broken == "foreign key":
        authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(key)
    else:
        loaded = serialization.load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(
            loaded.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"password"),
            )
        )
    with pytest.raises(ConfigError, match="cannot use the certificate"):
        async with serve_http(APP, "127.0.0.1:0", tls=tls):
            pass
