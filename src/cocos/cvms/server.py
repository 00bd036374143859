# SPDX-License-Identifier: Apache-2.0
"""gRPC ⇄ use cases of the test CVMS."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
from grpc import aio

from cocos.clients.cvms import STORES_RESULTS
from cocos.cvms.config import CvmsSettings
from cocos.cvms.service import CvmsService, Session
from cocos.errors import ConfigError
from cocos.transport.rpc import Service, server_credentials
from cocos.wire._generated import cvms_pb2 as pb
from cocos.wire._generated import cvms_pb2_grpc as pb_grpc

HEALTH_NAME = "cvms_test_server"

_Context = aio.ServicerContext[Any, Any]


class CvmsServicer(pb_grpc.ServiceServicer):
    """Serves ``cvms.Service``.

    Args:
        service: The CVMS.
        closing: Set when every stream shall end.
    """

    def __init__(self, service: CvmsService, closing: asyncio.Event) -> None:
        self._service = service
        self._closing = closing

    async def Process(  # noqa: N802 - wire name
        self, request_iterator: AsyncIterator[pb.ClientStreamMessage], context: _Context
    ) -> AsyncIterator[pb.ServerStreamMessage]:
        metadata = {key: _text(value) for key, value in context.invocation_metadata() or ()}
        job = metadata.get("job-id", "")
        log_only = metadata.get("connection-type") == "log-forwarder"
        session = Session(self._service, job, log_only=log_only)
        closing = asyncio.ensure_future(self._closing.wait())
        reading: asyncio.Future[Any] = closing
        try:
            await context.send_initial_metadata((STORES_RESULTS,))
            for message in session.begin():
                yield message
            while True:
                reading = asyncio.ensure_future(anext(request_iterator, None))
                await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    return
                received = reading.result()
                if received is None:
                    return
                for message in session.receive(received):
                    yield message
        finally:
            closing.cancel()
            reading.cancel()
            session.end()


def grpc_service(service: CvmsService, closing: asyncio.Event) -> Service:
    """Return the CVMS as :func:`cocos.transport.rpc.serve` wants it."""
    servicer = CvmsServicer(service, closing)
    return Service("cvms.Service", partial(pb_grpc.add_ServiceServicer_to_server, servicer))


def credentials(settings: CvmsSettings) -> grpc.ServerCredentials | None:
    """Return the TLS settings, or None for plaintext.

    Raises:
        ConfigError: a file is missing, or half of a pair.
    """
    if (settings.server_cert is None) != (settings.server_key is None):
        raise ConfigError("TLS needs both SERVER_CERT and SERVER_KEY")
    cas = [path for path in (settings.server_ca, settings.client_ca) if path is not None]
    if settings.server_cert is None or settings.server_key is None:
        if cas:
            raise ConfigError("CA certificates need TLS: set SERVER_CERT and SERVER_KEY")
        return None
    return server_credentials(
        settings.server_cert, settings.server_key, cas, "the agents' CA certificates"
    )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
