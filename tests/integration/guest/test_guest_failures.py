# SPDX-License-Identifier: Apache-2.0
"""Attestation agent and key provider while the KBS comes and goes, and under bad input."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from _kbs_program import start_kbs
from _programs import running
from grpc import aio

from cocos.clients._local_rpc import LocalChannel
from cocos.clients.attestation_agent import AttestationAgent
from cocos.crypto import kek
from cocos.errors import (
    AuthenticationError,
    CallerError,
    CocosError,
    ProtocolError,
    TooLargeError,
    UnreachableError,
)
from cocos.wire import ocicrypt
from cocos.wire._generated import keyprovider_pb2 as pb
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group(__name__),
]

KEY = ResourcePath.parse("default/key/1")
OPTIONS = encode({"symkey": bytes(32), "cipheroptions": {"nonce": bytes(16)}})
PROVIDER = "keyprovider.KeyProviderService"


@dataclass
class Guest:
    """An agent and a provider, started before there is a KBS; it will be at ``port``."""

    port: int
    agent: str
    provider: str
    key: bytes

    async def unwrap(self) -> bytes:
        packet = ocicrypt.Packet(ResourceUri.parse(KEY.uri), kek.wrap(self.key, OPTIONS)).encode()
        return await self.ask(ocicrypt.unwrap_input(packet, ["cc_kbc::null"]))

    async def ask(self, document: bytes) -> bytes:
        request = pb.KeyProviderKeyWrapProtocolInput(KeyProviderKeyWrapProtocolInput=document)
        async with LocalChannel(self.provider, "the key provider") as channel:
            reply = await channel.call(
                (PROVIDER, "UnWrapKey"), request, pb.KeyProviderKeyWrapProtocolOutput, 120
            )
        return ocicrypt.parse_unwrap_output(reply.KeyProviderKeyWrapProtocolOutput)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guest]:
    folder = tmp_path_factory.mktemp("guest")
    port, agent = free_port(), f"unix://{folder}/aa.sock"
    kbs = ("--kbs", f"http://127.0.0.1:{port}")
    async with (
        running("attestation-agent", "-a", agent, "--insecure-sample"),
        running("coco-keyprovider", "-s", "127.0.0.1:0", "--aa", agent, *kbs) as provider,
    ):
        yield Guest(port, agent, provider.address, kek.generate())


async def test_the_kbs_comes_goes_and_comes_back(guest: Guest, tmp_path: Path) -> None:
    """Nothing of the guest is restarted; each failure is told as what it is."""
    flags = ("--insecure-allow-sample", "--socket", f"127.0.0.1:{guest.port}")
    with pytest.raises(UnreachableError, match=rf"{KEY.uri}.*127\.0\.0\.1:{guest.port}"):
        await guest.unwrap()
    async with start_kbs(tmp_path, *flags) as kbs:
        await kbs.store(KEY, guest.key)
        assert await asyncio.gather(*(guest.unwrap() for _ in range(64))) == [OPTIONS] * 64
        assert await kbs.requests("POST", "/kbs/v0/auth") == 1, "one handshake serves all"
        kbs.program.kill()
    down = await asyncio.gather(*(guest.unwrap() for _ in range(8)), return_exceptions=True)
    assert all(isinstance(each, UnreachableError) for each in down), down
    # What the guest holds of the old one is a session that nobody knows.
    (tmp_path / "new").mkdir()
    async with start_kbs(tmp_path / "new", *flags) as kbs:
        await kbs.store(KEY, guest.key)
        assert await asyncio.gather(*(guest.unwrap() for _ in range(64))) == [OPTIONS] * 64
        assert await kbs.requests("POST", "/kbs/v0/auth") <= 2
    (tmp_path / "strict").mkdir()
    async with start_kbs(tmp_path / "strict", *flags[1:]) as strict:
        with pytest.raises(AuthenticationError, match="sample"):
            await guest.unwrap()
        assert await strict.requests("POST", "/kbs/v0/auth") == 1, "a denial is not tried again"


async def test_what_is_no_kbs_is_told(guest: Guest) -> None:
    async def ssh(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(ssh, "127.0.0.1", guest.port):
        with pytest.raises((ProtocolError, UnreachableError), match="is not the KBS"):
            await guest.unwrap()


@pytest.mark.parametrize("address", ["agent", "provider"])
async def test_megabytes_are_refused_and_the_server_goes_on(guest: Guest, address: str) -> None:
    big = "x" * 3 * 2**20
    if address == "provider":
        for document in (big.encode(), b"[" * 3 * 2**20, b'{"op":"%s"}' % (b"k" * 2**20)):
            with pytest.raises(CallerError) as caught:
                await guest.ask(document)
            assert len(caught.value.message) < 1000
        with pytest.raises(TooLargeError):
            await guest.ask(bytes(5 * 2**20))
        return
    async with AttestationAgent(guest.agent) as agent:
        for call in (
            agent.evidence(big.encode()),
            agent.bind_init_data(big.encode()),
            agent.get_token(big),
            agent.get_token(f"kbs::{big}"),
            agent.get_token(f"kbs::http://{big}"),
            agent.get_token(f"kbs::http://x/{chr(10)}"),
        ):
            with pytest.raises(CocosError) as refused:
                await call
            assert len(refused.value.message) < 1000
        with pytest.raises(TooLargeError):
            await agent.evidence(bytes(5 * 2**20))
        assert await agent.tee() == "sample"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"])
async def test_malformed_messages_are_the_callers_fault(guest: Guest, data: bytes) -> None:
    async with aio.insecure_channel(guest.provider) as channel:
        call: Any = channel.unary_unary(f"/{PROVIDER}/UnWrapKey")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(data)
    assert caught.value.code().name == "INVALID_ARGUMENT"
