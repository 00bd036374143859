# SPDX-License-Identifier: Apache-2.0
"""The key provider on gRPC: messages to use cases and back, nothing else.

The status text is all that a user of Skopeo sees, so the errors' sentences name key and cause.
"""

from functools import partial
from typing import Any

from grpc import aio

from cocos.keyprovider.service import KeyProvider
from cocos.transport.rpc import Service
from cocos.wire._generated import keyprovider_pb2 as pb
from cocos.wire._generated import keyprovider_pb2_grpc as pb_grpc


class _Servicer(pb_grpc.KeyProviderServiceServicer):
    def __init__(self, provider: KeyProvider) -> None:
        self._provider = provider

    async def WrapKey(  # noqa: N802 - gRPC names
        self,
        request: pb.KeyProviderKeyWrapProtocolInput,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.KeyProviderKeyWrapProtocolOutput:
        reply = await self._provider.wrap(request.KeyProviderKeyWrapProtocolInput)
        return pb.KeyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=reply)

    async def UnWrapKey(  # noqa: N802
        self,
        request: pb.KeyProviderKeyWrapProtocolInput,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.KeyProviderKeyWrapProtocolOutput:
        reply = await self._provider.unwrap(request.KeyProviderKeyWrapProtocolInput)
        return pb.KeyProviderKeyWrapProtocolOutput(KeyProviderKeyWrapProtocolOutput=reply)


def service(provider: KeyProvider) -> Service:
    """Return the provider as a gRPC service for :func:`cocos.transport.rpc.serve`."""
    return Service(
        name=pb.DESCRIPTOR.services_by_name["KeyProviderService"].full_name,
        register=partial(pb_grpc.add_KeyProviderServiceServicer_to_server, _Servicer(provider)),
    )
