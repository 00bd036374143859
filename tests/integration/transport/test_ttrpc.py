# SPDX-License-Identifier: Apache-2.0
"""ttrpc servers and clients on real sockets, with what peers may do wrong."""

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from cocos import errors
from cocos.clients._local_rpc import LocalChannel
from cocos.transport import rpc, ttrpc
from cocos.wire import ttrpc as wire
from cocos.wire._generated import keyprovider_pb2, keyprovider_pb2_grpc
from cocos.wire._generated import ttrpc_pb2 as pb

pytestmark = pytest.mark.integration

NAME = "keyprovider.KeyProviderService"
Message = keyprovider_pb2.KeyProviderKeyWrapProtocolInput
Reply = keyprovider_pb2.KeyProviderKeyWrapProtocolOutput


class Servicer(keyprovider_pb2_grpc.KeyProviderServiceServicer):
    """WrapKey echoes or fails as it is told; UnWrapKey waits until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.go = asyncio.Event()
        self.waiting = 0
        self._more = asyncio.Event()

    async def until(self, waiting: int) -> None:
        while self.waiting < waiting:
            self._more.clear()
            await self._more.wait()

    async def WrapKey(self, request: Any, _context: Any) -> Any:  # noqa: N802 - protobuf's name
        if self.error:
            raise self.error from ValueError("the secret cause")
        return Reply(KeyProviderKeyWrapProtocolOutput=request.KeyProviderKeyWrapProtocolInput)

    async def UnWrapKey(self, request: Any, _context: Any) -> Any:  # noqa: N802
        self.waiting += 1
        self._more.set()
        await self.go.wait()
        return Reply(KeyProviderKeyWrapProtocolOutput=request.KeyProviderKeyWrapProtocolInput)


def service(servicer: Servicer) -> rpc.Service:
    return rpc.Service(
        NAME,
        lambda server: keyprovider_pb2_grpc.add_KeyProviderServiceServicer_to_server(
            servicer, server
        ),
    )


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/folder/s.sock"


def client(address: str) -> LocalChannel:
    return LocalChannel(address, "the key provider")


async def echo(
    own: LocalChannel, payload: bytes, method: str = "WrapKey", seconds: float = 30
) -> bytes:
    reply = await own.call(
        (NAME, method), Message(KeyProviderKeyWrapProtocolInput=payload), Reply, seconds
    )
    return reply.KeyProviderKeyWrapProtocolOutput


def envelope(**change: Any) -> bytes:
    members = {"service": NAME, "method": "WrapKey", "payload": b"", **change}
    return pb.Request(**members).SerializeToString()


@contextlib.asynccontextmanager
async def raw(
    address: str, *chunks: bytes
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix://"))
    writer.writelines(chunks)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, pb.Response]:
    header = wire.Header.parse(await reader.readexactly(wire.HEADER_BYTES))
    assert header.kind == wire.RESPONSE
    return header.stream, wire.parse_response(await reader.readexactly(header.length))


def modes(path: Path) -> list[int]:
    return [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, path) if each.exists()]


async def test_many_calls_share_one_connection_and_the_socket_is_ours_only(address: str) -> None:
    servicer = Servicer()
    path = Path(address.removeprefix("unix://"))
    async with ttrpc.serve(address, [service(servicer)]) as bound, client(bound) as own:
        assert bound == address
        assert modes(path) == [0o700, 0o600]
        slow = asyncio.create_task(echo(own, b"slow", "UnWrapKey"))
        texts = [b"%d" % number for number in range(300)]
        assert await asyncio.gather(*(echo(own, text) for text in texts)) == texts
        servicer.go.set()
        assert await slow == b"slow"
    assert modes(path) == [0o700]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (errors.NotFoundError("no such key", hint="look"), errors.NotFoundError, r"key \(look\)"),
        (errors.AccessDeniedError("no"), errors.AccessDeniedError, "no"),
        (errors.UnreachableError("the KBS is down"), errors.UnreachableError, "KBS is down"),
        (ValueError("secret"), errors.ProtocolError, "internal error"),
    ],
)
async def test_errors_become_status_codes_without_their_cause(
    address: str, error: Exception, kind: type[errors.CocosError], words: str
) -> None:
    async with ttrpc.serve(address, [service(Servicer(error))]), client(address) as own:
        with pytest.raises(kind, match=words) as caught:
            await echo(own, b"x")
        assert "secret" not in caught.value.message


async def test_unknown_methods_and_deadlines(address: str) -> None:
    servicer = Servicer()
    async with ttrpc.serve(address, [service(servicer)]), client(address) as own:
        with pytest.raises(errors.ProtocolError, match="no method"):
            await echo(own, b"x", "Nothing")
        requests = [
            envelope(method="UnWrapKey", timeout_nano=1),
            envelope(service="other"),
            b"\xff",
            envelope(payload=b"\x0a\xff"),
            b"\x0a\x01\xff",  # text that is not UTF-8
        ]
        frames = [wire.frame(1 + 2 * n, wire.REQUEST, each) for n, each in enumerate(requests)]
        async with raw(address, *frames) as (reader, _):
            found = dict([await answer(reader) for _ in frames])
    assert {stream: reply.status.code for stream, reply in found.items()} == {
        1: 4,  # DEADLINE_EXCEEDED
        3: 12,  # UNIMPLEMENTED
        5: 3,  # INVALID_ARGUMENT
        7: 3,
        9: 3,
    }


async def test_a_large_message_is_refused_and_the_connection_goes_on(address: str) -> None:
    async with ttrpc.serve(address, [service(Servicer())]):
        size = wire.MAX_MESSAGE_BYTES + 1
        async with raw(address, wire.frame(1, wire.REQUEST, bytes(size))) as (reader, writer):
            assert (await answer(reader))[1].status.code == 8  # RESOURCE_EXHAUSTED
            writer.write(wire.frame(3, wire.REQUEST, envelope()))
            assert (await answer(reader))[1].status.code == 0
            # A frame that would never end is not waited for.
            writer.write(b"\xff\xff\xff\xff" + wire.frame(5, wire.REQUEST, b"")[4:])
            assert (await answer(reader))[1].status.code == 8
            assert await reader.read() == b""


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",  # gRPC
        wire.frame(1, wire.RESPONSE, b""),
        wire.frame(2, wire.REQUEST, envelope()),
        wire.frame(1, 3, b""),
        wire.frame(1, 77, b""),
    ],
)
async def test_what_is_no_call_ends_the_connection_only(address: str, data: bytes) -> None:
    async with ttrpc.serve(address, [service(Servicer())]), client(address) as own:
        async with raw(address, data) as (reader, _):
            assert await reader.read() == b""
        assert await echo(own, b"x") == b"x"


async def test_a_caller_that_hangs_up_hurts_nobody(address: str) -> None:
    servicer = Servicer()
    async with ttrpc.serve(address, [service(servicer)]), client(address) as own:
        for cut in (1, 9, 15):
            async with raw(address, wire.frame(1, wire.REQUEST, envelope())[:cut]):
                pass
        waiting = envelope(method="UnWrapKey")
        async with raw(address, *(wire.frame(n, wire.REQUEST, waiting) for n in (1, 3))):
            await servicer.until(2)
        servicer.go.set()
        assert await echo(own, b"x") == b"x"


async def test_a_flood_of_calls_waits_in_the_socket(address: str) -> None:
    servicer = Servicer()
    async with ttrpc.serve(address, [service(servicer)]), client(address) as own:
        flood = [asyncio.create_task(echo(own, b"x", "UnWrapKey")) for _ in range(500)]
        await servicer.until(64)
        async with client(address) as other:  # others are served meanwhile
            assert await echo(other, b"y") == b"y"
        assert servicer.waiting == 64
        servicer.go.set()
        assert await asyncio.gather(*flood) == [b"x"] * 500


async def test_the_client_comes_back_after_a_restart(address: str) -> None:
    async with client(address) as own:
        with pytest.raises(errors.UnreachableError, match="does not answer: No such file"):
            await echo(own, b"x")
        for _ in range(2):
            async with ttrpc.serve(address, [service(Servicer())]):
                assert await echo(own, b"x") == b"x"
            with pytest.raises(errors.UnreachableError):
                await echo(own, b"x")


async def test_a_server_that_hangs_is_given_up(address: str) -> None:
    async with ttrpc.serve(address, [service(Servicer())]), client(address) as own:
        with pytest.raises(errors.UnreachableError, match="in time"):
            await echo(own, b"x", "UnWrapKey", seconds=0.01)
        assert await echo(own, b"x") == b"x"


async def test_the_wrong_protocol_is_named(tmp_path: Path) -> None:
    async with rpc.serve(f"unix:{tmp_path}/grpc.sock", [service(Servicer())]):
        async with client(f"unix://{tmp_path}/grpc.sock") as own:
            with pytest.raises(errors.PeerError) as caught:
                await echo(own, b"x")
        assert "unix:///PATH is ttrpc" in (caught.value.hint or "")


async def test_a_second_server_fails_and_a_left_over_socket_does_not(address: str) -> None:
    async with ttrpc.serve(address, [service(Servicer())]), client(address) as own:
        with pytest.raises(errors.UnreachableError, match="cannot listen"):
            async with ttrpc.serve(address, [service(Servicer())]):
                pass
        assert await echo(own, b"x") == b"x"
    path = Path(address.removeprefix("unix://"))
    listener = await asyncio.start_unix_server(lambda _r, _w: None, path)
    listener.close()
    await listener.wait_closed()
    async with ttrpc.serve(address, [service(Servicer())]), client(address) as own:
        assert await echo(own, b"x") == b"x"


@pytest.mark.parametrize("address", ["unix:/x", "127.0.0.1:1", "unix://x"])
async def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(errors.UsageError):
        async with ttrpc.serve(address, [service(Servicer())]):
            pass


async def test_grpc_tells_malformed_messages_from_faults_of_ours(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/grpc.sock"
    async with (
        rpc.serve(address, [service(Servicer())]),
        aio.insecure_channel(address) as channel,
    ):
        call: Any = channel.unary_unary(f"/{NAME}/WrapKey")
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"\x0a\xff")
    assert caught.value.code().name == "INVALID_ARGUMENT"
