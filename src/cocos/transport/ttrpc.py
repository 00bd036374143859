# SPDX-License-Identifier: Apache-2.0
"""ttrpc servers on Unix sockets: the services of :mod:`cocos.transport.rpc`, unary calls only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from cocos.errors import FormatError, TooLargeError, UnreachableError, UsageError
from cocos.host import unix_socket
from cocos.transport.rpc import GRACE_SECONDS, Service, failure
from cocos.wire import ttrpc
from cocos.wire._generated import ttrpc_pb2 as pb

_MAX_CALLS: Final = 64  # of one connection at once; more of them wait in the socket
_MAX_DISCARDED: Final = 64 * 2**20

_log = structlog.get_logger(__name__)


class _Methods:
    """Takes the place of a gRPC server when services register themselves."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._handlers: dict[str, Mapping[str, Any]] = {}
        for service in services:
            target: Any = self
            service.register(target)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Pass over: the same handlers come by name."""

    def add_registered_method_handlers(self, name: str, handlers: Mapping[str, Any]) -> None:
        self._handlers[name] = handlers

    async def call(self, request: pb.Request) -> pb.Response:
        """Answer a call; a failure is an answer, too."""
        name = f"/{request.service}/{request.method}"
        handler = self._handlers.get(request.service, {}).get(request.method)
        if handler is None or handler.unary_unary is None:
            return _failed(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {name[:200]}")
        seconds = request.timeout_nano / 1e9 if request.timeout_nano > 0 else None
        try:
            async with asyncio.timeout(seconds):
                message = handler.request_deserializer(request.payload)
                reply = await handler.unary_unary(message, None)
        except TimeoutError:
            return _failed(grpc.StatusCode.DEADLINE_EXCEEDED, "the caller's time is over")
        except Exception as error:  # noqa: BLE001 - the edge of the process
            return _failed(*failure(name, error))
        return pb.Response(payload=handler.response_serializer(reply))


def _failed(status: grpc.StatusCode, text: str) -> pb.Response:
    code: Any = status.value
    return pb.Response(status=pb.Status(code=code[0], message=text))


class _Connection:
    """One client; its calls run side by side."""

    def __init__(
        self, methods: _Methods, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._methods = methods
        self._reader = reader
        self._writer = writer
        self._room = asyncio.Semaphore(_MAX_CALLS)
        self.calls: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Serve until the client has gone, or sends what is no ttrpc."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await self._next():
                pass

    def close(self) -> None:
        """Make :meth:`serve` end."""
        self._writer.close()

    async def _next(self) -> bool:
        data = await self._reader.readexactly(ttrpc.HEADER_BYTES)
        header = ttrpc.Header.parse(data)
        if data.startswith(ttrpc.GRPC):
            _log.warning("ttrpc.grpc-client", hint="unix:/PATH is for gRPC, unix:///PATH for ttrpc")
            return False
        if header.length > ttrpc.MAX_MESSAGE_BYTES:
            return await self._refuse(header)
        payload = await self._reader.readexactly(header.length)
        if header.kind != ttrpc.REQUEST or header.stream % 2 == 0:
            _log.info("ttrpc.malformed", kind=header.kind, stream=header.stream)
            return False
        await self._room.acquire()
        task = asyncio.create_task(self._answer(header.stream, payload))
        self.calls.add(task)
        task.add_done_callback(self._done)
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self.calls.discard(task)
        self._room.release()

    async def _answer(self, stream: int, payload: bytes) -> None:
        try:
            response = await self._methods.call(ttrpc.parse_request(payload))
        except FormatError as error:
            response = _failed(*failure("ttrpc", error))
        await self._send(stream, response)

    async def _refuse(self, header: ttrpc.Header) -> bool:
        error = TooLargeError(f"a message has at most {ttrpc.MAX_MESSAGE_BYTES} bytes")
        await self._send(header.stream, _failed(*failure("ttrpc", error)))
        if header.length > _MAX_DISCARDED:
            return False
        left = header.length
        while left:
            data = await self._reader.read(min(left, 2**16))
            if not data:
                return False
            left -= len(data)
        return True

    async def _send(self, stream: int, response: pb.Response) -> None:
        payload = response.SerializeToString()
        if len(payload) > ttrpc.MAX_MESSAGE_BYTES:
            error = TooLargeError(f"the answer is larger than {ttrpc.MAX_MESSAGE_BYTES} bytes")
            payload = _failed(*failure("ttrpc", error)).SerializeToString()
        with contextlib.suppress(ConnectionError):
            self._writer.write(ttrpc.frame(stream, ttrpc.RESPONSE, payload))
            await self._writer.drain()


@contextlib.asynccontextmanager
async def serve(address: str, services: Sequence[Service]) -> AsyncIterator[str]:
    """Serve until the block ends, then finish running calls within a grace period.

    Args:
        address: ``unix:///PATH``; missing folders are made. Only our user may connect.
        services: What to serve.

    Yields:
        The address.

    Raises:
        UsageError: not such an address.
        UnreachableError: the address cannot be bound.
    """
    methods = _Methods(services)
    connections: dict[asyncio.Task[None], _Connection] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(methods, reader, writer)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs callbacks of this kind in tasks
        connections[task] = connection
        try:
            await connection.serve()
        finally:
            del connections[task]
            connection.close()

    path = _path(address)
    server = await asyncio.start_unix_server(connected, sock=_bind(path, address))
    try:
        yield address
    finally:
        server.close()
        calls = [call for each in connections.values() for call in each.calls]
        if calls:
            await asyncio.wait(calls, timeout=GRACE_SECONDS)
        for call in calls:
            call.cancel()
        for connection in connections.values():
            connection.close()
        await asyncio.gather(*calls, *connections, return_exceptions=True)
        path.unlink(missing_ok=True)


def _path(address: str) -> Path:
    path = address.removeprefix("unix://")
    if path == address or not path.startswith("/"):
        raise UsageError(f"{address!r} is not unix:///PATH")
    return Path(path)


def _bind(path: Path, address: str) -> Any:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_socket():
            with contextlib.suppress(ConnectionRefusedError):
                unix_socket.connect(path).close()
                raise UnreachableError(
                    f"cannot listen on {address}", hint="another program uses it"
                )
            path.unlink()  # left over by a program that was killed
        return unix_socket.listen(path)
    except OSError as error:
        raise UnreachableError(f"cannot listen on {address}: {error.strerror}") from error
