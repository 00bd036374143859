# SPDX-License-Identifier: Apache-2.0
"""Serve an ASGI application on Granian, inside this process and event loop.

We bind the socket ourselves: port 0 works, a second server on the port fails instead of
sharing it, and from the first moment clients are queued, not refused.

What Granian cannot limit the kernel does: how much it buffers for one connection, and how
long a client may take nothing of an answer (docs/adr/0019).
"""

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from cocos.errors import InternalError, UnreachableError, UsageError
from cocos.transport.tls_files import TlsFiles, check_served

GRACE_SECONDS: Final = 5.0
_BACKLOG: Final = 1024
_CONNECTIONS: Final = 4096
_SPARE_FILES: Final = 256
_HEADER_MILLISECONDS: Final = 10_000
_STALL_MILLISECONDS: Final = 30_000
_HEADER_BYTES: Final = 400 * 2**10
_BUFFER_BYTES: Final = 128 * 2**10
_START_SECONDS: Final = 30.0
_LOG_TO_STDERR: Final = {
    "handlers": {
        "console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.NullHandler"},
    },
    "formatters": {},
}


class _Server(Server):
    """Granian's embedded server on a socket that is bound already."""

    def __init__(self, app: Any, bound: socket.socket, **settings: Any) -> None:
        super().__init__(app, **settings)
        self._bound = bound

    def _init_shared_socket(self) -> None:
        # The holder closes the descriptor. Granian's stub leaves its constructor out.
        holder: Any = SocketHolder
        self._shd: Any = holder(self._bound.detach(), False, _BACKLOG)
        self._ssp = None


@contextlib.asynccontextmanager
async def serve_http(app: Any, address: str, *, tls: TlsFiles | None = None) -> AsyncIterator[str]:
    """Serve until the block ends, then finish running requests within a grace period.

    Args:
        app: ASGI application.
        address: ``host:port`` or ``[ipv6]:port``; port 0 takes any free one.
        tls: Serve HTTPS with these; plain HTTP without.

    Yields:
        The URL with the real port, once a request has been answered there.

    Raises:
        UsageError: not an address.
        UnreachableError: the address cannot be bound.
        ConfigError: certificate and key cannot be served.
    """
    split_address(address)
    if tls is not None:
        await check_served(tls)
    async with serving(app, address, tls=tls) as url:
        yield url


@contextlib.asynccontextmanager
async def serving(app: Any, address: str, *, tls: TlsFiles | None) -> AsyncIterator[str]:
    """Serve as :func:`serve_http`, with files that have been looked at."""
    host, port = split_address(address)
    bound = _bind(address, host, port)
    port = bound.getsockname()[1]
    server = _Server(
        app,
        bound,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=_room_for_connections(),  # more wait in the kernel's queue
        http1_settings=HTTP1Settings(
            header_read_timeout=_HEADER_MILLISECONDS, max_buffer_size=_HEADER_BYTES
        ),
        log_level=LogLevels.error,
        log_dictconfig=_LOG_TO_STDERR,
        ssl_cert=tls.certificate if tls else None,
        ssl_key=tls.private_key if tls else None,
        ssl_protocol_min=SSLProtocols(f"tls{tls.min_version}" if tls else "tls1.3"),
    )
    running: asyncio.Task[None] = asyncio.create_task(server.serve())
    try:
        await _until_it_answers(running, host, port, tls)
        shown = f"[{host}]" if ":" in host else host
        yield f"{'https' if tls else 'http'}://{shown}:{port}"
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # Granian types only part of itself
        await asyncio.wait({running}, timeout=GRACE_SECONDS)
        running.cancel()


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port``; an IPv6 host stands in brackets.

    Raises:
        UsageError: not an address.
    """
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - largest port
        raise UsageError(f"{address!r} is not an address", hint="write it as 127.0.0.1:8080")
    return host, int(port)


def listening(address: str) -> str:
    """Return an address that :func:`split_address` takes, for settings.

    Raises:
        ValueError: it does not.
    """
    try:
        split_address(address)
    except UsageError as error:
        raise ValueError(f"{error.message}: {error.hint}") from error
    return address


def _bind(address: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        why = (error.strerror or str(error)).partition(" (while")[0]  # Python adds the address
        raise UnreachableError(
            f"cannot listen on {address}: {why}",
            hint="is another program using it?" if in_use else None,
        ) from error
    bound.setblocking(False)
    # Connections inherit these.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALL_MILLISECONDS)
    return bound


def _room_for_connections() -> int:
    """Return how many connections to have at once, after asking for files for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _CONNECTIONS + _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(_CONNECTIONS, soft - _SPARE_FILES))


async def _until_it_answers(
    running: "asyncio.Task[None]", host: str, port: int, tls: TlsFiles | None
) -> None:
    probe = asyncio.create_task(_probe(host, port, tls))
    done, _ = await asyncio.wait(
        {running, probe}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED
    )
    if probe not in done:
        probe.cancel()
        failure = running.exception() if running in done else None
        raise InternalError("the HTTP server did not start") from failure
    await probe


async def _probe(host: str, port: int, tls: TlsFiles | None) -> None:
    """Get one answer from ourselves; the certificate's names are not our business here."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    reader, writer = await asyncio.open_connection(target, port, ssl=context)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: self\r\nConnection: close\r\n\r\n")
        await reader.readexactly(len("HTTP/1.1"))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
