# SPDX-License-Identifier: Apache-2.0
"""gRPC servers: errors to status codes, limits, health, reflection, graceful stop.

Services raise the errors of :mod:`cocos.errors`; the peer sees their code, message and
hint, the log has the cause.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cocos import errors
from cocos.errors import (
    CocosError,
    ConfigError,
    FormatError,
    InternalError,
    TooManyRequestsError,
    UnreachableError,
    UntrustedError,
    retry_after,
)
from cocos.host.disk import translated
from cocos.host.files import read_certificates, read_file
from cocos.transport.local_callers import LocalCallers
from cocos.transport.tls_files import TlsFiles

MAX_MESSAGE_BYTES = 4 * 2**20  # the default of gRPC's peers
GRACE_SECONDS = 5.0

_LOGGED: Final = 1000  # characters of a stranger's text
_OVER: Final = (asyncio.InvalidStateError, aio.UsageError, aio.InternalError)
"""What grpc.aio raises, on either side, where a call has ended under the hands of its user."""
# Beside the status of our own servers' answers: the error's code, which says more, and that it
# was the server that answered, not the way to it.
_CODE: Final = "cocos-error"
_RETRY_AFTER: Final = "retry-after"

_log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service to serve.

    Attributes:
        name: Full name, ``package.Service``; also its name for the health service.
        register: Adds it to a server: ``functools.partial`` of the generated function,
            or a closure over it.
    """

    name: str
    register: Callable[[aio.Server], None]


class _Edge(aio.ServerInterceptor):
    """Admits callers, and maps our errors to status codes, for all kinds of methods alike.

    Args:
        callers: Whom to serve; None: everybody.
        bound: Where the server listens.
    """

    def __init__(self, callers: LocalCallers | None, bound: str) -> None:
        self._callers = callers
        self.bound = bound

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or (self._callers is None and method.startswith("/grpc.")):
            return handler
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        call: Any = getattr(handler, kind)

        def begun(request: Any, context: aio.ServicerContext[Any, Any]) -> Any:
            # Connections carry many calls; each is looked at, before its bytes are.
            if self._callers is not None:
                self._callers.check(context.peer(), self.bound)
            if not handler.request_streaming:
                request = handler.request_deserializer(request)
            return call(request, context)

        async def guarded_stream(request: object, context: aio.ServicerContext[Any, Any]) -> Any:
            try:
                async for reply in begun(request, context):
                    yield reply
            except Exception as error:  # noqa: BLE001 - the edge of the process
                await _abort(context, method, error)

        async def guarded(request: object, context: aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await begun(request, context)
            except Exception as error:  # noqa: BLE001 - the edge of the process
                await _abort(context, method, error)

        make: Any = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(
            guarded_stream if inspect.isasyncgenfunction(call) else guarded,
            # Ours raises where gRPC's would, which gRPC would call a fault of ours.
            request_deserializer=handler.request_deserializer
            if handler.request_streaming
            else None,
            response_serializer=handler.response_serializer,
        )


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"


async def _abort(context: aio.ServicerContext[Any, Any], method: str, error: Exception) -> None:
    if isinstance(error, aio.AbortError):
        raise error
    # What the method has set goes along: abort's own metadata takes its place otherwise.
    more: list[Any] = list(context.trailing_metadata() or ())
    if isinstance(error, CocosError):
        more.append((_CODE, error.code))
        wait = getattr(error, "retry_after", None)
        if wait is not None:
            more.append((_RETRY_AFTER, f"{wait:.3f}"))
    try:
        if isinstance(error, _OVER):
            raise error
        await context.abort(*failure(method, error), trailing_metadata=tuple(more))
    except _OVER as over:
        _log.debug("rpc.caller-gone", method=method)
        raise asyncio.CancelledError from over  # nobody is left to be told


def failure(method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
    """Log a failed call and return what the peer is told of it."""
    if isinstance(error, DecodeError):
        malformed = FormatError("the request is not the message that the method takes")
        return failure(method, malformed)
    error = translated(error) or error
    if not isinstance(error, CocosError):
        _log.error("rpc.crashed", method=method, exc_info=error)
        return grpc.StatusCode.INTERNAL, "internal error; the server's log has the cause"
    more: dict[str, Any] = {}
    if isinstance(error, InternalError):
        more["exc_info"] = error
    elif error.__cause__ is not None:
        # No traceback: a stranger's mistake is not worth it, as often as he likes.
        more["cause"] = repr(error.__cause__)[:_LOGGED]
    _log.info("rpc.failed", method=method, code=error.code, error=error.message[:_LOGGED], **more)
    text = error.message if error.hint is None else f"{error.message} ({error.hint})"
    return grpc.StatusCode[error.grpc_status], text


def server_credentials(
    certificate: Path, key: Path, client_cas: Sequence[Path], whose: str
) -> grpc.ServerCredentials:
    """Return TLS for :func:`serve`.

    Args:
        certificate: Certificate chain, PEM, leaf first.
        key: Its private key, PEM.
        client_cas: Who certifies clients, PEM; without, everybody is a client.
        whose: What such a file is, for messages.

    Raises:
        ConfigError: a file cannot be read, or a CA's holds no certificate.
    """
    pair = (
        read_file(key, "the server's private key", limit=2**20),
        read_file(certificate, "the server's certificate", limit=2**20),
    )
    roots = b"\n".join(read_certificates(path, whose) for path in client_cas)
    TlsFiles(certificate, key).check()
    return grpc.ssl_server_credentials([pair], roots or None, require_client_auth=bool(client_cas))


@asynccontextmanager
async def serve(
    address: str,
    services: Sequence[Service],
    *,
    credentials: grpc.ServerCredentials | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    health_names: Sequence[str] = (),
    callers: LocalCallers | None = None,
    lost_after: float | None = None,
) -> AsyncIterator[str]:
    """Serve until the block ends, then finish running calls within a grace period.

    Args:
        address: ``host:port`` (port 0: any free one) or ``unix:/path``.
        services: What to serve; health and reflection come on top.
        credentials: TLS; plaintext HTTP/2 without.
        max_message_bytes: Largest message in either direction.
        health_names: More names that the health service knows, as old clients ask for.
        callers: The only users of this machine to serve; None: whoever reaches the address.
        lost_after: Seconds of silence after which a client is asked whether it is there, and as
            many more until its calls end if it does not answer; None: gRPC's two hours.

    Yields:
        The address with the real port.

    Raises:
        UnreachableError: the address cannot be bound.
    """
    if not services:
        raise ConfigError("a gRPC server needs at least one service")
    edge = _Edge(callers, address)
    server = aio.server(interceptors=[edge], options=_options(max_message_bytes, lost_after))
    names = [service.name for service in services]
    for service in services:
        service.register(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    edge.bound = _bind(server, address, credentials)
    await server.start()
    for name in ["", *names, *health_names]:
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield edge.bound
    finally:
        await health_servicer.enter_graceful_shutdown()
        await asyncio.shield(server.stop(GRACE_SECONDS))


def _options(max_message_bytes: int, lost_after: float | None) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ]
    if lost_after is not None:
        milliseconds = int(lost_after * 1000)
        options += [
            ("grpc.keepalive_time_ms", milliseconds),
            ("grpc.http2.ping_timeout_ms", milliseconds),
            ("grpc.http2.max_pings_without_data", 0),
        ]
    return options


def _bind(server: aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    """Bind an address and return it with the real port."""
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise UnreachableError(
            f"cannot listen on {address}", hint="is it in use, or not of this machine?"
        ) from error
    host, colon, _ = address.rpartition(":")
    return address if address.startswith("unix:") else f"{host}{colon}{port}"


@contextmanager
def calling(address: str, what: str) -> Iterator[None]:
    """Translate what a call raises: there is more than :class:`grpc.RpcError`.

    Args:
        address: Who is called.
        what: Who that is, for messages.

    Raises:
        UnreachableError: the call has ended under our hands: closed, cancelled, half-closed.
        CocosError: the error of its status code.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise client_error(address, error, what) from error
    except _OVER as error:
        raise UnreachableError(f"{what} at {address} has ended the call") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody has cancelled us: it is the call that was cancelled.
        raise UnreachableError(f"{what} at {address} has ended the call") from error


def readable(answer: T | None, address: str, what: str) -> T:
    """Return an answer; grpc gives None for one that does not parse.

    Raises:
        ProtocolError: it does not.
    """
    if answer is None:
        raise errors.ProtocolError(f"{what} at {address} answered what is no message of its method")
    return answer


_BY_CODE: Final[dict[str, type[CocosError]]] = {
    kind.code: kind
    for kind in (
        errors.StorageError,
        TooManyRequestsError,
        UnreachableError,
        UntrustedError,
    )
}
"""What the status code alone does not tell apart."""


def client_error(address: str, error: grpc.RpcError, what: str) -> CocosError:
    """Translate a failed call into the error of the same status code."""
    if not isinstance(error, grpc.Call | aio.AioRpcError):
        return status_error(address, None, "", what)
    status, detail = error.code(), error.details() or ""
    said = {str(name): str(value) for name, value in error.trailing_metadata() or ()}
    code = said.get(_CODE)
    if code is None and status is grpc.StatusCode.UNAVAILABLE:
        return UnreachableError(f"{what} at {address} does not answer: {detail}")
    if code is None or (kind := _BY_CODE.get(code)) is None:
        return status_error(address, status, detail, what)
    return _with_wait(kind(f"{what} at {address}: {detail}"), said.get(_RETRY_AFTER))


def _with_wait(error: CocosError, text: str | None) -> CocosError:
    wait = retry_after(text)
    if wait is not None and isinstance(error, UnreachableError | TooManyRequestsError):
        error.retry_after = wait
    return error


def status_error(
    address: str, status: grpc.StatusCode | None, detail: str, what: str
) -> CocosError:
    """Return the error that a status code stands for, of a peer that has answered.

    Args:
        address: Who answered.
        status: The code; None if there is none.
        detail: The peer's text.
        what: Who that is, for the message.
    """
    if status is grpc.StatusCode.UNAVAILABLE:
        return UnreachableError(f"{what} at {address}: {detail}")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(f"{what} at {address} did not answer in time")
    family: dict[str, type[CocosError]] = {
        kind.grpc_status: kind
        for kind in (
            errors.CallerError,
            errors.AuthenticationError,
            errors.AccessDeniedError,
            errors.NotFoundError,
            errors.StateError,
            errors.TooLargeError,
            errors.IntegrityError,
        )
    }
    kind = family.get(status.name if status else "", errors.ProtocolError)
    return kind(f"{what} at {address}: {detail}")
