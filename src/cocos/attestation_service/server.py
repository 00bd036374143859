# SPDX-License-Identifier: Apache-2.0
"""The attestation service on gRPC: messages to use cases and back, nothing else.

Trustee's attestation service and reference value provider, and the keys of the tokens.
Failures have the status code of their error, where Trustee's have ABORTED alone; what was
found wrong with evidence travels in the trailing metadata.
"""

from functools import partial
from typing import Any

from grpc import aio

from cocos._apart import apart
from cocos._types import JsonObject
from cocos.attestation_service.messages import appraisal_request, attester, check_count, tee_of
from cocos.attestation_service.request import AppraisalRequest, Attester
from cocos.attestation_service.service import AttestationService
from cocos.attestation_service.signing_keys import SigningKeys
from cocos.crypto import base64url
from cocos.errors import EvidenceError, Finding, FormatError, NotFoundError
from cocos.transport.rpc import Service
from cocos.wire import json
from cocos.wire._generated import attestation_keys_pb2 as keys_pb
from cocos.wire._generated import attestation_keys_pb2_grpc as keys_grpc
from cocos.wire._generated import attestation_pb2 as pb
from cocos.wire._generated import attestation_pb2_grpc as pb_grpc
from cocos.wire._generated import reference_pb2 as rv
from cocos.wire._generated import reference_pb2_grpc as rv_grpc
from cocos.wire.attestation_rpc import FINDINGS, encode_findings
from cocos.wire.kbs.protocol import InitData


class _Attestation(pb_grpc.AttestationServiceServicer):
    def __init__(self, service: AttestationService) -> None:
        self._service = service

    async def AttestationEvaluate(  # noqa: N802 - gRPC names
        self, request: pb.AttestationRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.AttestationResponse:
        try:
            appraisal = await self._service.appraise(
                await apart(request.ByteSize(), _appraisal_request, request)
            )
        except EvidenceError as error:
            context.set_trailing_metadata(((FINDINGS, encode_findings(error.findings)),))
            raise
        return pb.AttestationResponse(attestation_token=appraisal.token)

    async def SetAttestationPolicy(  # noqa: N802
        self,
        request: pb.SetPolicyRequest,
        context: aio.ServicerContext[Any, Any],
    ) -> pb.SetPolicyResponse:
        text = _text(request.policy, "the policy")
        warnings = await self._service.set_policy(request.policy_id, text)
        if warnings:
            findings = tuple(Finding("policy", warning) for warning in warnings)
            context.set_trailing_metadata(((FINDINGS, encode_findings(findings)),))
        return pb.SetPolicyResponse()

    async def GetAttestationChallenge(  # noqa: N802
        self, request: pb.ChallengeRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.ChallengeResponse:
        tee = tee_of(request.inner.get("tee", ""))
        text = request.inner.get("tee_params", "")
        params: Any = ""
        if text:
            raw = text.encode()
            params = await apart(len(raw), json.decode_strict, raw, Any, "tee_params")
        try:
            asked = await self._service.demand(tee, params)
        except EvidenceError as error:
            context.set_trailing_metadata(((FINDINGS, encode_findings(error.findings)),))
            raise
        if asked is None:
            return pb.ChallengeResponse(attestation_challenge=await self._service.challenge())
        return pb.ChallengeResponse(
            attestation_challenge=asked.nonce,
            params=json.encode(asked.params).decode(),
            state=asked.state,
        )


class _ReferenceValues(rv_grpc.ReferenceValueProviderServiceServicer):
    def __init__(self, service: AttestationService) -> None:
        self._service = service

    async def QueryReferenceValue(  # noqa: N802
        self,
        request: rv.ReferenceValueQueryRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> rv.ReferenceValueQueryResponse:
        try:
            value = await self._service.get_reference_value(request.reference_value_id)
        except NotFoundError:
            return rv.ReferenceValueQueryResponse()
        return rv.ReferenceValueQueryResponse(reference_value_results=json.encode(value).decode())

    async def RegisterReferenceValue(  # noqa: N802
        self,
        request: rv.ReferenceValueRegisterRequest,
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> rv.ReferenceValueRegisterResponse:
        await self._service.register_reference_values(_object(request.message, "the message"))
        return rv.ReferenceValueRegisterResponse()


class _TokenKeys(keys_grpc.TokenKeysServicer):
    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    async def GetKeySet(  # noqa: N802
        self,
        request: keys_pb.GetKeySetRequest,  # noqa: ARG002
        context: aio.ServicerContext[Any, Any],  # noqa: ARG002
    ) -> keys_pb.KeySet:
        return keys_pb.KeySet(jwks=json.encode(await self._keys.published()).decode())


def services(service: AttestationService, keys: SigningKeys) -> list[Service]:
    """Return the gRPC services of an attestation service, for :func:`cocos.transport.rpc.serve`."""
    attestation = partial(pb_grpc.add_AttestationServiceServicer_to_server, _Attestation(service))
    values = partial(
        rv_grpc.add_ReferenceValueProviderServiceServicer_to_server, _ReferenceValues(service)
    )
    published = partial(keys_grpc.add_TokenKeysServicer_to_server, _TokenKeys(keys))
    return [
        Service(pb.DESCRIPTOR.services_by_name["AttestationService"].full_name, attestation),
        Service(rv.DESCRIPTOR.services_by_name["ReferenceValueProviderService"].full_name, values),
        Service(keys_pb.DESCRIPTOR.services_by_name["TokenKeys"].full_name, published),
    ]


def _appraisal_request(request: pb.AttestationRequest) -> AppraisalRequest:
    check_count(request.verification_requests)
    attesters = [_attester(each) for each in request.verification_requests]
    return appraisal_request(attesters, request.policy_ids)


def _attester(request: pb.IndividualAttestationRequest) -> Attester:
    raw = structured = digest = init_data = None
    match request.WhichOneof("runtime_data"):
        case "raw_runtime_data":
            raw = request.raw_runtime_data
        case "structured_runtime_data":
            structured = _object(request.structured_runtime_data, "the runtime data")
    match request.WhichOneof("init_data"):
        case "init_data_digest":
            digest = request.init_data_digest
        case "init_data_toml":
            init_data = InitData("toml", request.init_data_toml)
        case "init_data_json":
            init_data = InitData("json", request.init_data_json)
    return attester(
        request.tee,
        request.evidence,
        raw=raw,
        structured=structured,
        algorithm=request.runtime_data_hash_algorithm,
        init_data=init_data,
        init_data_digest=digest,
        state=request.state or None,
    )


def _object(text: str, what: str) -> JsonObject:
    decoded: JsonObject = json.decode_strict(text.encode(), JsonObject, what)
    return decoded


def _text(encoded: str, what: str) -> str:
    try:
        return base64url.decode(encoded, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8") from error
