# SPDX-License-Identifier: Apache-2.0
"""Calls to services of this machine: gRPC, or ttrpc for addresses ``unix:///PATH``."""

import asyncio
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc import aio

from cocos.errors import CocosError, FormatError, ProtocolError, UnreachableError
from cocos.host import unix_socket
from cocos.transport.rpc import calling, readable, status_error
from cocos.wire import ttrpc
from cocos.wire._generated import ttrpc_pb2 as pb

M = TypeVar("M", bound=Message)
Method: TypeAlias = tuple[str, str]


class _Wire(Protocol):
    async def call(self, method: Method, request: Message, reply: type[M], seconds: float) -> M: ...

    async def close(self) -> None: ...


class LocalChannel:
    """The way to another program of this machine; an async context manager.

    Args:
        address: ``host:port`` or ``unix:/path`` for gRPC, ``unix:///path`` for ttrpc.
        what: Who that is, for messages.
    """

    def __init__(self, address: str, what: str) -> None:
        kind = _Ttrpc if address.startswith("unix://") else _Grpc
        self._wire: _Wire = kind(address, what)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    async def call(self, method: Method, request: Message, reply: type[M], seconds: float) -> M:
        """Call a method.

        Args:
            method: Full name of the service, and name of the method.
            request: Its argument.
            reply: What it returns.
            seconds: How long to wait.

        Raises:
            UnreachableError: nobody answers, or not in time.
            ProtocolError: what answers is no such service.
            CocosError: the error of the answer's status code.
        """
        return await self._wire.call(method, request, reply, seconds)


class _Grpc:
    def __init__(self, address: str, what: str) -> None:
        self._address = address
        self._what = what
        self._channel: aio.Channel | None = None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def call(self, method: Method, request: Message, reply: type[M], seconds: float) -> M:
        if self._channel is None:
            options = [
                # A proxy that the environment names has no business between the two.
                ("grpc.enable_http_proxy", 0),
                # One that was started again is found soon; gRPC would wait for minutes.
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ]
            self._channel = aio.insecure_channel(self._address, options=options)
        call: Any = self._channel.unary_unary(
            f"/{method[0]}/{method[1]}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        with calling(self._address, self._what):
            answer: M | None = await call(request, timeout=seconds)
        return readable(answer, self._address, self._what)


class _Ttrpc:
    """One connection, which all calls share; opened at the first one, and again after a failure."""

    def __init__(self, address: str, what: str) -> None:
        self._path = Path(address.removeprefix("unix://"))
        self._address = address
        self._what = what
        self._opening = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[pb.Response]] = {}
        self._stream = 1

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def call(self, method: Method, request: Message, reply: type[M], seconds: float) -> M:
        envelope = pb.Request(
            service=method[0],
            method=method[1],
            payload=request.SerializeToString(),
            timeout_nano=int(seconds * 1e9),
        ).SerializeToString()
        try:
            async with asyncio.timeout(seconds):
                response = await self._exchange(envelope)
        except TimeoutError as error:
            raise UnreachableError(
                f"{self._what} at {self._address} did not answer in time"
            ) from error
        if response.status.code:
            status = _STATUS.get(response.status.code, grpc.StatusCode.UNKNOWN)
            raise status_error(self._address, status, response.status.message, self._what)
        try:
            return reply.FromString(response.payload)
        except DecodeError as error:
            raise self._no_ttrpc("its answer is malformed") from error

    async def _exchange(self, envelope: bytes) -> pb.Response:
        writer = await self._connected()
        stream, self._stream = self._stream, (self._stream + 2) % 2**32
        answer: asyncio.Future[pb.Response] = asyncio.get_running_loop().create_future()
        self._waiting[stream] = answer
        try:
            writer.write(ttrpc.frame(stream, ttrpc.REQUEST, envelope))
            await writer.drain()
            return await answer
        except OSError as error:
            raise self._gone(error) from error
        finally:
            del self._waiting[stream]

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._opening:
            if self._writer is None:
                try:
                    connected = unix_socket.connect(self._path)
                    reader, self._writer = await asyncio.open_unix_connection(sock=connected)
                except OSError as error:
                    raise self._gone(error) from error
                self._stream = 1
                self._reading = asyncio.create_task(self._read(reader, self._writer))
            return self._writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        problem: CocosError
        try:
            while True:
                header = ttrpc.Header.parse(await reader.readexactly(ttrpc.HEADER_BYTES))
                if header.kind != ttrpc.RESPONSE or header.length > ttrpc.MAX_MESSAGE_BYTES:
                    problem = self._no_ttrpc("what answers does not speak ttrpc")
                    break
                response = ttrpc.parse_response(await reader.readexactly(header.length))
                answer = self._waiting.get(header.stream)
                if answer is not None and not answer.done():
                    answer.set_result(response)
        except FormatError as error:
            problem = self._no_ttrpc(error.message)
        except (asyncio.IncompleteReadError, OSError) as error:
            problem = self._gone(error)
        finally:
            self._writer = None
            writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(problem)

    def _gone(self, error: Exception) -> UnreachableError:
        reason = error.strerror if isinstance(error, OSError) else "the connection ended"
        return UnreachableError(
            f"{self._what} at {self._address} does not answer: {reason}",
            hint="is it running? unix:///PATH is ttrpc, unix:/PATH is gRPC",
        )

    def _no_ttrpc(self, problem: str) -> ProtocolError:
        return ProtocolError(
            f"{self._what} at {self._address}: {problem}",
            hint="unix:///PATH is ttrpc, unix:/PATH is gRPC",
        )


_STATUS = {status.value[0]: status for status in grpc.StatusCode}
