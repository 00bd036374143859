# SPDX-License-Identifier: Apache-2.0
"""The real program among strangers: genuine guests are served, nothing breaks or grows."""

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from _programs import Running, running

from cocos.attesters import InsecureSampleAttester
from cocos.clients.kbs import KbsAdmin, KbsClient
from cocos.crypto.tee_key import TeeKeyPair
from cocos.wire.kbs.protocol import EcKey, ResourcePath, ResourceUri, report_data, runtime_data

pytestmark = pytest.mark.integration

PATH = ResourcePath.parse("default/key/1")
SECRET = bytes(range(32))
GUESTS = 10
MAX_RSS_MIB = 400
SESSIONS = 10_000
CONNECTIONS = 20
MAX_GROWTH_MIB = 60
KEY = TeeKeyPair.generate().public_jwk()
TEE_KEY = EcKey(KEY["crv"], KEY["alg"], KEY["x"], KEY["y"])
HEAD = b"POST /kbs/v0/attest HTTP/1.1\r\nHost: x\r\nCookie: kbs-session-id=0\r\n"


@pytest.fixture
async def kbs(tmp_path: Path) -> AsyncIterator[Running]:
    arguments = ["--socket", "127.0.0.1:0", "--insecure-http", "--insecure-api"]
    arguments += ["--insecure-allow-sample", "--storage", str(tmp_path / "storage")]
    async with running("kbs", *arguments) as program:
        async with KbsAdmin(program.address, token=None) as admin:
            await admin.set_resource(PATH, SECRET)
        yield program


async def raw(kbs: Running, sent: bytes, *, half_close: bool = False, wait: bool = True) -> None:
    """Send something and hear the server out, or go away at once."""
    with contextlib.suppress(OSError):
        host, port = kbs.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(sent)
            await writer.drain()
            if half_close:
                writer.write_eof()
            if wait:
                await reader.read()
        finally:
            writer.close()


def attestation(nonce: str, svn: str = "1") -> dict[str, Any]:
    bound = base64.b64encode(report_data(runtime_data(nonce, TEE_KEY, ""))).decode()
    evidence = {"svn": svn, "report_data": bound}
    return {
        "runtime-data": {"nonce": nonce, "tee-pubkey": KEY},
        "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
    }


async def megabytes(http: httpx.AsyncClient) -> tuple[int, str]:
    """Attest with genuine evidence as large as a body may be."""
    begun = await http.post(
        "/kbs/v0/auth", json={"version": "0.4.0", "tee": "sample", "extra-params": ""}
    )
    body = attestation(begun.json()["nonce"], svn="x" * 1_900_000)
    cookie = {"Cookie": begun.headers["set-cookie"].partition(";")[0]}
    answer = await http.post("/kbs/v0/attest", json=body, headers=cookie)
    return answer.status_code, answer.json()["detail"]


def resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = re.search(r"VmRSS:\s*(\d+) kB", status)
    assert found
    return int(found[1]) // 1024


async def guest(kbs: Running) -> bytes:
    async with KbsClient(kbs.address, InsecureSampleAttester()) as client:
        return await client.get_resource(ResourceUri.parse(PATH.uri))


async def test_guests_are_served_among_strangers(kbs: Running) -> None:
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(base_url=kbs.address, limits=limits, timeout=120) as http:
        silent = [asyncio.create_task(raw(kbs, b"GET /kbs")) for _ in range(200)]
        strangers = [
            *(
                raw(kbs, HEAD + b"Content-Length: 99\r\n\r\nabc", half_close=True)
                for _ in range(50)
            ),
            *(raw(kbs, HEAD + b"Content-Length: 99\r\n\r\nabc", wait=False) for _ in range(50)),
            *(raw(kbs, os.urandom(3000)) for _ in range(50)),
            *(raw(kbs, HEAD + b"Transfer-Encoding: chunked\r\n\r\nz\r\n") for _ in range(50)),
        ]
        calls = [
            *(http.post("/kbs/v0/auth", content=b"[" * 10_000) for _ in range(100)),
            *(
                http.post("/kbs/v0/auth", json={"version": "0.1.0", "tee": "snp"})
                for _ in range(99)
            ),
            *(http.get("/kbs/v0/resource/default/key/1") for _ in range(50)),
        ]
        served, answers, sizes, _ = await asyncio.gather(
            asyncio.gather(*(guest(kbs) for _ in range(GUESTS))),
            asyncio.gather(*calls),
            asyncio.gather(*(megabytes(http) for _ in range(10))),
            asyncio.gather(*strangers),
        )
        assert served == [SECRET] * GUESTS
        assert {answer.status_code for answer in answers} == {400, 401}
        for status, detail in sizes:
            assert (status, "the claims make a token of" in detail) == (413, True), detail
        assert await guest(kbs) == SECRET
        for task in silent:
            task.cancel()
    assert "Traceback" not in kbs.text
    assert not [line for line in kbs.log if re.search(r"\b(error|critical)\s*\]", line)]
    assert resident_mib(kbs.pid) < MAX_RSS_MIB


@dataclass
class Session:
    cookie: str
    nonce: str


async def open_sessions(kbs: Running, count: int) -> list[Session]:
    """Begin handshakes on one connection; httpx would take most of the time."""
    host, port = kbs.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"version":"0.4.0","tee":"sample","extra-params":""}'
    head = f"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    opened = []
    for _ in range(count):
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 200"), answer
        cookie = re.search("kbs-session-id=[0-9a-f]{32}", answer)
        length = re.search(r"(?i)content-length: (\d+)", answer)
        assert cookie
        assert length
        content = await reader.readexactly(int(length[1]))
        opened.append(Session(cookie[0], json.loads(content)["nonce"]))
    writer.close()
    return opened


async def test_ten_thousand_open_sessions(kbs: Running) -> None:
    await guest(kbs)
    before = resident_mib(kbs.pid)
    opened = await asyncio.gather(
        *(open_sessions(kbs, SESSIONS // CONNECTIONS) for _ in range(CONNECTIONS))
    )
    async with httpx.AsyncClient(base_url=kbs.address, timeout=120) as http:
        for session in (opened[0][0], opened[-1][-1]):
            answer = await http.post(
                "/kbs/v0/attest",
                json=attestation(session.nonce),
                headers={"Cookie": session.cookie},
            )
            assert answer.status_code == 200, answer.text
    assert len({each.nonce for one in opened for each in one}) == SESSIONS
    assert resident_mib(kbs.pid) - before < MAX_GROWTH_MIB
