# SPDX-License-Identifier: Apache-2.0
"""The attestation agent on gRPC: messages to use cases and back, nothing else.

Failures have the status code of their error, where the original has one opaque INTERNAL.
"""

from functools import partial
from typing import Any

from grpc import aio

from cocos.attestation_agent.service import AttestationAgent, Measured
from cocos.transport.rpc import Service
from cocos.wire._generated import attestation_agent_pb2 as pb
from cocos.wire._generated import attestation_agent_pb2_grpc as pb_grpc

_RESULTS = {
    Measured.DONE: pb.RuntimeMeasurementResult.OK,
    Measured.NOT_SUPPORTED: pb.RuntimeMeasurementResult.NOT_SUPPORTED,
    Measured.NOT_ENABLED: pb.RuntimeMeasurementResult.NOT_ENABLED,
}


class _Servicer(pb_grpc.AttestationAgentServiceServicer):
    def __init__(self, agent: AttestationAgent) -> None:
        self._agent = agent

    async def GetEvidence(  # noqa: N802 - gRPC names
        self,
        request: pb.GetEvidenceRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetEvidenceResponse:
        return pb.GetEvidenceResponse(Evidence=await self._agent.evidence(request.RuntimeData))

    async def GetAdditionalEvidence(  # noqa: N802
        self,
        request: pb.GetAdditionalEvidenceRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetEvidenceResponse:
        evidence = await self._agent.additional_evidence(request.RuntimeData)
        return pb.GetEvidenceResponse(Evidence=evidence)

    async def GetToken(  # noqa: N802
        self,
        request: pb.GetTokenRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetTokenResponse:
        token = await self._agent.token(
            request.TokenType, refused=request.Refused, runtime_data=request.RuntimeData
        )
        return pb.GetTokenResponse(Token=token)

    async def ExtendRuntimeMeasurement(  # noqa: N802
        self,
        request: pb.ExtendRuntimeMeasurementRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.ExtendRuntimeMeasurementResponse:
        result = await self._agent.extend_runtime_measurement(
            request.Domain,
            request.Operation,
            request.Content,
            request.RegisterIndex if request.HasField("RegisterIndex") else None,
        )
        return pb.ExtendRuntimeMeasurementResponse(Result=_RESULTS[result])

    async def BindInitData(  # noqa: N802
        self,
        request: pb.BindInitDataRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.BindInitDataResponse:
        await self._agent.bind_init_data(request.Digest)
        return pb.BindInitDataResponse()

    async def GetTeeType(  # noqa: N802
        self,
        request: pb.GetTeeTypeRequest,  # noqa: ARG002
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetTeeTypeResponse:
        return pb.GetTeeTypeResponse(tee=await self._agent.tee())

    async def GetAdditionalTees(  # noqa: N802
        self,
        request: pb.GetAdditionalTeesRequest,  # noqa: ARG002
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> pb.GetAdditionalTeesResponse:
        return pb.GetAdditionalTeesResponse(additional_tees=await self._agent.additional_tees())


def service(agent: AttestationAgent) -> Service:
    """Return the agent as a gRPC service for :func:`cocos.transport.rpc.serve`."""
    return Service(
        name=pb.DESCRIPTOR.services_by_name["AttestationAgentService"].full_name,
        register=partial(pb_grpc.add_AttestationAgentServiceServicer_to_server, _Servicer(agent)),
    )
