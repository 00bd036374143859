# SPDX-License-Identifier: Apache-2.0
"""The agent's side of the stream to the CVMS, ``cvms.Service/Process``."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio

from cocos.transport.rpc import calling
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire._generated import cvms_pb2_grpc as pb_grpc
from cocos.wire.address import CVMS_PORT, Address, parse_address

STORES_RESULTS = ("cocos-stored", "1")
"""Initial metadata of a CVMS that says what it has stored; those of the original do not."""
CONNECT_SECONDS = 30.0

_WHAT = "the CVMS"
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    # A peer that vanished without a word; more often than this servers take offence.
    ("grpc.keepalive_time_ms", 310_000),
    # Our own loop decides when to try again.
    ("grpc.enable_retries", 0),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM texts for TLS to the CVMS; both or none of certificate and key."""

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A CVMS and who we are to it.

    Attributes:
        address: Where it is.
        cvm_id: Sent as metadata ``job-id``.
        tls: None for plaintext.
    """

    address: Address
    cvm_id: str = ""
    tls: Tls | None = None

    @classmethod
    def parse(cls, url: str, *, cvm_id: str = "", tls: Tls | None = None) -> "Endpoint":
        """Parse ``host:port``, ``http://host:port`` or ``https://host:port``.

        Raises:
            FormatError: none of these, or plaintext is asked for and certificates are given.
        """
        address = parse_address(url, what=_WHAT, default_port=CVMS_PORT)
        if tls is None and address.scheme == "https":
            tls = Tls()
        return cls(address, cvm_id, tls)


class CvmsStream:
    """One open stream. Reading and writing are for one task each."""

    def __init__(self, endpoint: Endpoint, call: Any) -> None:
        self._endpoint = endpoint
        self._call = call
        self.stores_results: bool | None = None
        """Whether the CVMS says what it has stored; None until it has spoken."""

    async def send(self, message: pb.ClientStreamMessage) -> None:
        """Send a message; returns when gRPC has taken it.

        Raises:
            UnreachableError: the stream is broken.
        """
        with calling(str(self._endpoint.address), _WHAT):
            await self._call.write(message)

    async def receive(self) -> pb.ServerStreamMessage | None:
        """Return the next message, or None when the CVMS has ended the stream.

        Raises:
            UnreachableError: the stream is broken.
        """
        with calling(str(self._endpoint.address), _WHAT):
            message = await self._call.read()
            if self.stores_results is None:
                key, value = STORES_RESULTS
                self.stores_results = (await self._call.initial_metadata()).get(key) == value
        return None if message is aio.EOF else message


@contextlib.asynccontextmanager
async def connect(endpoint: Endpoint) -> AsyncIterator[CvmsStream]:
    """Have a stream open while the block runs.

    Raises:
        UnreachableError: nobody answers at the address, which the message names.
    """
    address = str(endpoint.address)
    async with _channel(endpoint, address) as channel:
        stub = pb_grpc.ServiceStub(channel)
        metadata = (("job-id", endpoint.cvm_id),) if endpoint.cvm_id else ()
        call: Any = stub.Process(metadata=metadata)
        try:
            with calling(address, _WHAT):
                await call.wait_for_connection()
            yield CvmsStream(endpoint, call)
        finally:
            call.cancel()


def _channel(endpoint: Endpoint, address: str) -> aio.Channel:
    if endpoint.tls is None:
        return aio.insecure_channel(address, options=_OPTIONS)
    tls = endpoint.tls
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    return aio.secure_channel(address, credentials, options=_OPTIONS)
