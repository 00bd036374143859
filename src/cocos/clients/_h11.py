# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 over asyncio's streams, with h11 for the protocol.

Not httpx: most of what a key costs a guest was its time, and a third of what our programs
import there (ADR 0027). One request at a time per connection; connections are kept for the
next requests.
"""

import asyncio
import contextlib
import errno
import hashlib
import ssl
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

import h11

from cocos.clients._transport import (
    Answer,
    Headers,
    NotConnectedError,
    StrangerError,
    TooMuchError,
)

CONNECT_SECONDS: Final = 10.0
_MAX_CONNECTIONS: Final = 32  # more requests at once wait for each other
_IDLE_SECONDS: Final = 4.0  # a server that closes idle connections waits longer
_CHUNK: Final = 2**16
_BEGIN: Final = b"HTTP/1."
_ENDED: Final = "the connection ended before an answer"
_SAFE: Final = "/%?=&:@!$'()*+,;~-._"  # in a request's target; the rest is percent-encoded


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._state = h11.Connection(h11.CLIENT)
        self._begun = b""
        self.idle_since = 0.0

    @property
    def reusable(self) -> bool:
        """Whether the last exchange is complete and nobody has hung up."""
        return self._state.our_state is h11.IDLE and not self._reader.at_eof()

    async def exchange(self, request: h11.Request, content: bytes, limit: int) -> Answer:
        self._begun = b""
        events = [request, h11.Data(content), h11.EndOfMessage()]
        with contextlib.suppress(ConnectionError):  # a server may answer before it has read all
            self._writer.writelines(self._state.send(event) or b"" for event in events)
            await self._writer.drain()
        head = await self._next()
        while isinstance(head, h11.InformationalResponse):
            head = await self._next()
        if not isinstance(head, h11.Response):
            raise ConnectionResetError(errno.ECONNRESET, _ENDED)
        body = bytearray()
        while isinstance(event := await self._next(), h11.Data):
            body += event.data
            if len(body) > limit:
                raise TooMuchError
        if self._state.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._state.start_next_cycle()
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in head.headers]
        return Answer(head.status_code, Headers(headers), bytes(body))

    async def _next(self) -> Any:
        """Return h11's next event; ConnectionResetError when an answer is cut off."""
        ended = False
        try:
            while (event := self._state.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(_CHUNK)
                ended = not data
                self._begun += data[: len(_BEGIN) - len(self._begun)]
                self._state.receive_data(data)
        except h11.RemoteProtocolError as error:
            if ended and self._was_http():
                raise ConnectionResetError(errno.ECONNRESET, _ENDED) from error
            raise
        return event

    def _was_http(self) -> bool:
        """Tell whether what has come so far could have become an answer."""
        return self._begun.startswith(_BEGIN) or _BEGIN.startswith(self._begun)

    def close(self) -> None:
        # Nothing is on its way any more, and TLS's good-bye may take as long as the peer likes.
        self._writer.transport.abort()


class H11Transport:
    """Connections to one server.

    Args:
        url: Base URL; only scheme, host and port count.
        tls: For ``https``, and of no use otherwise.
        fingerprints: SHA-256, hex, of the only certificates to speak to; any without.
    """

    def __init__(
        self, url: str, tls: ssl.SSLContext | None, fingerprints: Collection[str] = ()
    ) -> None:
        parts = urlsplit(url)
        self.tls = tls if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (80 if self.tls is None else 443)
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self._name = shown if parts.port is None else f"{shown}:{parts.port}"
        self._fingerprints = frozenset(fingerprints)
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._closed = False

    async def send(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes, limit: int
    ) -> Answer:
        """Send one request and read its answer; see :class:`Transport`."""
        fields = {"Host": self._name, **headers}
        if content or method in {"POST", "PUT"}:
            fields["Content-Length"] = str(len(content))
        request = h11.Request(
            method=method, target=quote(target, safe=_SAFE), headers=list(fields.items())
        )
        async with self._room:
            kept = self._take()
            if kept is not None:
                try:
                    return await self._exchange(kept, request, content, limit)
                except (ConnectionError, h11.RemoteProtocolError):
                    # The server may have closed it just when we wrote.
                    if method != "GET":
                        raise
            return await self._exchange(await self._connect(), request, content, limit)

    async def _exchange(
        self, connection: _Connection, request: h11.Request, content: bytes, limit: int
    ) -> Answer:
        try:
            answer = await connection.exchange(request, content, limit)
        except BaseException:
            connection.close()
            raise
        if connection.reusable and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _take(self) -> _Connection | None:
        """Return the connection that was used last, if it is still of use."""
        oldest = asyncio.get_running_loop().time() - _IDLE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    self._host,
                    self._port,
                    ssl=self.tls,
                    happy_eyeballs_delay=0.25,
                    limit=_CHUNK,
                )
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise NotConnectedError(error) from error
        try:
            self._check_certificate(writer)
        except StrangerError:
            writer.transport.abort()
            raise
        return _Connection(reader, writer)

    def _check_certificate(self, writer: asyncio.StreamWriter) -> None:
        if not self._fingerprints:
            return
        tls = writer.get_extra_info("ssl_object")
        shown = None if tls is None else tls.getpeercert(binary_form=True)
        found = "none" if not shown else hashlib.sha256(shown).hexdigest()
        if found not in self._fingerprints:
            raise StrangerError(found)

    async def close(self) -> None:
        """Close all connections, those in use when they have been."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
