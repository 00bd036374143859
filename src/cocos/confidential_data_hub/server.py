# SPDX-License-Identifier: Apache-2.0
"""The confidential data hub on gRPC and ttrpc: messages to use cases and back, nothing else."""

from functools import partial
from typing import Any

from grpc import aio

from cocos.confidential_data_hub.service import DataHub
from cocos.transport.rpc import Service
from cocos.wire._generated import confidential_data_hub_pb2 as pb
from cocos.wire._generated import confidential_data_hub_pb2_grpc as pb_grpc


class _Resources(pb_grpc.GetResourceServiceServicer):
    def __init__(self, hub: DataHub) -> None:
        self._hub = hub

    async def GetResource(  # noqa: N802 - gRPC names
        self,
        request: pb.GetResourceRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetResourceResponse:
        return pb.GetResourceResponse(Resource=await self._hub.resource(request.ResourcePath))


class _SealedSecrets(pb_grpc.SealedSecretServiceServicer):
    def __init__(self, hub: DataHub) -> None:
        self._hub = hub

    async def UnsealSecret(  # noqa: N802
        self,
        request: pb.UnsealSecretInput,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.UnsealSecretOutput:
        return pb.UnsealSecretOutput(plaintext=await self._hub.unseal(request.secret))


def services(hub: DataHub) -> list[Service]:
    """Return the hub as services of :mod:`cocos.transport`."""
    names = pb.DESCRIPTOR.services_by_name
    return [
        Service(
            name=names["GetResourceService"].full_name,
            register=partial(pb_grpc.add_GetResourceServiceServicer_to_server, _Resources(hub)),
        ),
        Service(
            name=names["SealedSecretService"].full_name,
            register=partial(
                pb_grpc.add_SealedSecretServiceServicer_to_server, _SealedSecrets(hub)
            ),
        ),
    ]
