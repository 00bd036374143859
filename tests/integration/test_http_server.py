# SPDX-License-Identifier: Apache-2.0
import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cocos.errors import ConfigError, UnreachableError
from cocos.transport import http_server
from cocos.transport.http_server import TlsFiles, serve_http
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


async def test_a_taken_port_is_named() -> None:
    async with serve_http(APP, "127.0.0.1:0") as url:
        address = url.removeprefix("http://")
        with pytest.raises(UnreachableError, match=address):
            async with serve_http(APP, address):
                pass


async def test_a_foreign_address_is_named() -> None:
    with pytest.raises(UnreachableError, match=r"192\.0\.2\.1:0"):
        async with serve_http(APP, "192.0.2.1:0"):
            pass


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
