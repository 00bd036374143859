# SPDX-License-Identifier: Apache-2.0
"""What every gRPC server of ours does, on the wire."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import structlog
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cocos import errors
from cocos.clients._local_rpc import LocalChannel
from cocos.clients.cvms import Endpoint, connect
from cocos.transport import rpc
from cocos.wire._generated import cvms_pb2, keyprovider_pb2, keyprovider_pb2_grpc

pytestmark = pytest.mark.integration

Message = keyprovider_pb2.KeyProviderKeyWrapProtocolInput
Reply = keyprovider_pb2.KeyProviderKeyWrapProtocolOutput


class Servicer(keyprovider_pb2_grpc.KeyProviderServiceServicer):
    """Fails as it is told to."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def WrapKey(self, request: Any, _context: Any) -> Any:  # noqa: N802 - protobuf's name
        if self.error:
            raise self.error from ValueError("the secret cause")
        return Reply(KeyProviderKeyWrapProtocolOutput=request.KeyProviderKeyWrapProtocolInput)

    async def UnWrapKey(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return Reply(KeyProviderKeyWrapProtocolOutput=request.KeyProviderKeyWrapProtocolInput)


def service(error: Exception | None = None) -> rpc.Service:
    return rpc.Service(
        "keyprovider.KeyProviderService",
        lambda server: keyprovider_pb2_grpc.add_KeyProviderServiceServicer_to_server(
            Servicer(error), server
        ),
    )


@pytest.fixture(params=["tcp", "unix"])
async def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s"


async def call(address: str, payload: bytes = b"x") -> bytes:
    async with aio.insecure_channel(address) as channel:
        stub = keyprovider_pb2_grpc.KeyProviderServiceStub(channel)
        reply = await stub.WrapKey(Message(KeyProviderKeyWrapProtocolInput=payload))
        return reply.KeyProviderKeyWrapProtocolOutput


async def test_serves_on_the_address_that_it_names(address: str) -> None:
    async with rpc.serve(address, [service()]) as bound:
        assert not bound.endswith(":0")
        assert await call(bound, b"ping") == b"ping"
    with pytest.raises(aio.AioRpcError) as caught:
        await call(bound)
    assert isinstance(
        rpc.client_error(bound, caught.value, "the key provider"), errors.UnreachableError
    )


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            errors.NotFoundError("no key here", hint="make one"),
            "NOT_FOUND",
            "no key here (make one)",
        ),
        (errors.AccessDeniedError("denied by policy"), "PERMISSION_DENIED", "denied by policy"),
        (errors.FormatError("malformed"), "INVALID_ARGUMENT", "malformed"),
        (RuntimeError("the secret"), "INTERNAL", "internal error; the server's log has the cause"),
    ],
)
async def test_errors_become_status_codes_without_their_cause(
    error: Exception, status: str, text: str
) -> None:
    async with rpc.serve("127.0.0.1:0", [service(error)]) as bound:
        with pytest.raises(aio.AioRpcError) as caught:
            await call(bound)
    assert caught.value.code() is grpc.StatusCode[status]
    assert caught.value.details() == text
    back = rpc.client_error(bound, caught.value, "the key provider")
    assert bound in back.message
    if isinstance(error, errors.CocosError):
        assert type(back).grpc_status == type(error).grpc_status


async def test_reflection_and_health() -> None:
    async def ask() -> AsyncIterator[Any]:
        yield cast("Any", reflection_pb2).ServerReflectionRequest(list_services="")

    async with (
        rpc.serve("127.0.0.1:0", [service()]) as bound,
        aio.insecure_channel(bound) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(
            health_pb2.HealthCheckRequest(service="keyprovider.KeyProviderService")
        )
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        names = [
            entry.name
            async for answer in stub.ServerReflectionInfo(ask())
            for entry in answer.list_services_response.service
        ]
    assert "keyprovider.KeyProviderService" in names


async def test_a_second_server_on_the_port_fails_clearly() -> None:
    async with rpc.serve("127.0.0.1:0", [service()]) as bound:
        with pytest.raises(errors.UnreachableError, match=f"cannot listen on {bound}"):
            async with rpc.serve(bound, [service()]):
                pytest.fail("two servers share a port")


async def test_too_large_a_message_is_refused() -> None:
    async with rpc.serve("127.0.0.1:0", [service()]) as bound:
        with pytest.raises(aio.AioRpcError) as caught:
            await call(bound, bytes(rpc.MAX_MESSAGE_BYTES + 1))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


# --- calls that end under the hands of their user ---------------------------------------

Serve = Callable[[Any, Any], AsyncIterator[bytes]]


@contextlib.asynccontextmanager
async def streams(serve: Serve) -> AsyncIterator[str]:
    """Have a server whose one method is ``serve``, of plain bytes."""
    handler: Any = grpc.stream_stream_rpc_method_handler(serve)
    generic = grpc.method_handlers_generic_handler("cvms.Service", {"Process": handler})
    registered = rpc.Service(
        "cvms.Service", lambda server: server.add_generic_rpc_handlers((generic,))
    )
    async with rpc.serve("127.0.0.1:0", [registered]) as bound:
        yield bound


async def ends_at_once(_requests: Any, _context: Any) -> AsyncIterator[bytes]:
    return
    yield b""


async def test_a_stream_that_was_ended_is_unreachable_not_a_crash() -> None:
    async with streams(ends_at_once) as bound, connect(Endpoint.parse(bound)) as stream:
        assert await stream.receive() is None
        for _ in range(2):
            with pytest.raises(errors.UnreachableError, match="has ended the call"):
                await stream.send(cvms_pb2.ClientStreamMessage())


async def test_a_call_that_was_cancelled_cancels_nobody() -> None:
    async def waits(requests: Any, _context: Any) -> AsyncIterator[bytes]:
        yield b""
        await anext(requests, None)

    async with streams(waits) as bound, aio.insecure_channel(bound) as channel:
        call: Any = channel.stream_stream("/cvms.Service/Process")()
        assert await call.read() == b""
        reading = asyncio.ensure_future(call.read())
        call.cancel()
        with pytest.raises(errors.UnreachableError), rpc.calling(bound, "it"):
            await reading
        with pytest.raises(errors.UnreachableError), rpc.calling(bound, "it"):
            await call.read()


async def test_our_own_cancellation_stays_one() -> None:
    async def call() -> None:
        with rpc.calling("h:1", "it"):
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "error",
    [asyncio.InvalidStateError("over"), aio.UsageError("over"), aio.InternalError("over")],
    ids=lambda error: type(error).__name__,
)
def test_whatever_grpc_says_of_a_call_that_is_over(error: Exception) -> None:
    with pytest.raises(errors.UnreachableError, match="it at h:1"), rpc.calling("h:1", "it"):
        raise error


async def test_an_answer_that_is_no_message() -> None:
    handler: Any = grpc.unary_unary_rpc_method_handler(_no_message, request_deserializer=bytes)
    generic = grpc.method_handlers_generic_handler("p.S", {"M": handler})
    registered = rpc.Service("p.S", lambda server: server.add_generic_rpc_handlers((generic,)))
    async with (
        rpc.serve("127.0.0.1:0", [registered]) as bound,
        LocalChannel(bound, "it") as channel,
    ):
        with pytest.raises(errors.ProtocolError, match="no message of its method"):
            await channel.call(("p.S", "M"), Message(), Reply, 10)


async def test_a_program_of_a_machine_that_is_busy_may_be_slow_to_greet() -> None:
    """A pause between tries is no limit of a try: a greeting comes late on two slow processors."""
    late = 2.0  # the longest pause between two tries, twice
    async with rpc.serve("127.0.0.1:0", [service()]) as bound:
        host, _, port = bound.rpartition(":")

        async def carry(asked: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
            await asyncio.sleep(late)
            reader, writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_copy(asked, writer), _copy(reader, answers))

        async with (
            await asyncio.start_server(carry, "127.0.0.1", 0) as slow,
            LocalChannel(f"127.0.0.1:{slow.sockets[0].getsockname()[1]}", "it") as channel,
        ):
            method = ("keyprovider.KeyProviderService", "UnWrapKey")
            sent = Message(KeyProviderKeyWrapProtocolInput=b"x")
            answer = await channel.call(method, sent, Reply, 60)
    assert answer.KeyProviderKeyWrapProtocolOutput == b"x"


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError), contextlib.closing(target):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()


async def _no_message(_request: bytes, _context: Any) -> bytes:
    return b"\xff"


async def test_a_caller_that_has_gone_is_no_fault_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done = asyncio.Event()

    async def speaks_on(_requests: Any, _context: Any) -> AsyncIterator[bytes]:
        yield b""
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            for _ in range(3):
                yield b"late"
        finally:
            done.set()

    with structlog.testing.capture_logs() as logs:
        async with streams(speaks_on) as bound:
            async with aio.insecure_channel(bound) as channel:
                call: Any = channel.stream_stream("/cvms.Service/Process")()
                assert await call.read() == b""
                call.cancel()
            await asyncio.wait_for(done.wait(), 20)
    assert not [entry for entry in logs if entry["log_level"] in {"error", "critical"}]
    assert not [entry for entry in caplog.records if entry.levelname in {"ERROR", "CRITICAL"}]
