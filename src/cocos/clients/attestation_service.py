# SPDX-License-Identifier: Apache-2.0
"""An attestation service somewhere else, over Trustee's gRPC."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

import grpc
from grpc import aio

from cocos._types import JsonObject
from cocos.clients.cvms import Tls
from cocos.crypto import base64url
from cocos.errors import CocosError, ConfigError, EvidenceError, FormatError, NotFoundError
from cocos.transport.loopback import local_address
from cocos.transport.rpc import calling, readable
from cocos.wire import json
from cocos.wire._generated import attestation_keys_pb2 as keys_pb
from cocos.wire._generated import attestation_keys_pb2_grpc as keys_grpc
from cocos.wire._generated import attestation_pb2 as pb
from cocos.wire._generated import attestation_pb2_grpc as pb_grpc
from cocos.wire._generated import reference_pb2 as rv
from cocos.wire._generated import reference_pb2_grpc as rv_grpc
from cocos.wire.address import parse_address
from cocos.wire.attestation_rpc import FINDINGS, MAX_MESSAGE_BYTES, decode_findings
from cocos.wire.kbs.protocol import InitData, Tee, without_devices

DEFAULT_PORT: Final = 50004
ANSWER_SECONDS: Final = 60.0
_WHAT: Final = "the attestation service"
_REFUSED: Final = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.ABORTED}
_UNIX: Final = "unix:"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an attestation service is.

    Attributes:
        target: As gRPC wants it.
        tls: None for plaintext.
        is_private: Whether nobody else can be answering: TLS, or this very machine.
    """

    target: str
    tls: Tls | None
    is_private: bool

    @classmethod
    def parse(cls, url: str, tls: Tls | None = None) -> "Place":
        """Parse ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:/PATH``.

        Raises:
            ConfigError: none of these, or certificates without TLS.
        """
        if url.startswith(_UNIX):
            if tls is not None:
                raise ConfigError(f"certificates are of no use at {url}")
            return cls(url, None, is_private=True)
        try:
            address = parse_address(url, what=_WHAT, default_port=DEFAULT_PORT)
        except FormatError as error:
            raise ConfigError(error.message, hint=error.hint) from error
        if address.scheme == "https":
            return cls(str(address), tls or Tls(), is_private=True)
        if tls is not None:
            raise ConfigError(f"certificates for {_WHAT} need an address with https://")
        return cls(str(address), None, is_private=_is_local(str(address)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the service asks of an attester; the state goes back to it as it is."""

    nonce: str
    params: JsonObject
    state: str


class AttestationServiceClient:
    """Talks to one attestation service; an async context manager.

    Every method raises UnreachableError if it does not answer and ProtocolError if it
    answers something else than its protocol.
    """

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ]
        target, tls = self._place.target, self._place.tls
        if tls is None:
            self._channel = aio.insecure_channel(target, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
            self._channel = aio.secure_channel(target, credentials, options=options)
        self._attestation = pb_grpc.AttestationServiceStub(self._channel)
        self._values = rv_grpc.ReferenceValueProviderServiceStub(self._channel)
        self._keys = keys_grpc.TokenKeysStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def demand(self, tee: Tee, extra_params: Any) -> Asked | None:
        """Return what is asked of an attester, if it is more than any nonce.

        Args:
            tee: Primary attester.
            extra_params: Of its request.

        Raises:
            EvidenceError: what it announced can never become evidence that holds.
        """
        inner = {"tee": tee.value, "tee_params": json.encode(extra_params).decode()}
        answer = await self._call(
            self._attestation.GetAttestationChallenge, pb.ChallengeRequest(inner=inner)
        )
        if not answer.params:
            return None
        params: JsonObject = json.decode(answer.params, JsonObject, "the challenge's parameters")
        return Asked(answer.attestation_challenge, params, answer.state)

    async def evaluate(
        self,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None,
        *,
        state: str | None = None,
    ) -> str:
        """Have evidence appraised and return the token.

        Args:
            tee: Primary attester.
            evidence: Its evidence.
            additional: Evidence of devices.
            runtime_data: What the primary attester's evidence must be bound to.
            init_data: What the host passed in, in clear.
            state: As it came with the challenge of this session, if there was one.

        Raises:
            EvidenceError: it does not hold.
        """
        primary = _individual(tee, evidence, runtime_data)
        if init_data is not None:
            setattr(primary, f"init_data_{init_data.format}", init_data.body)
        if state is not None:
            primary.state = state
        shared = without_devices(runtime_data)
        devices = [_individual(kind, each, shared) for kind, each in additional.items()]
        request = pb.AttestationRequest(verification_requests=[primary, *devices])
        answer = await self._call(self._attestation.AttestationEvaluate, request)
        return str(answer.attestation_token)

    async def set_policy(self, policy_id: str, text: str) -> tuple[str, ...]:
        """Store an attestation policy; return warnings, of which Trustee's has none."""
        request = pb.SetPolicyRequest(policy_id=policy_id, policy=base64url.encode(text.encode()))
        call = self._attestation.SetAttestationPolicy(request, timeout=ANSWER_SECONDS)
        await self._call(lambda *_args, **_options: call, request)
        with calling(self._place.target, _WHAT):
            beside = dict(await call.trailing_metadata() or ()).get(FINDINGS)
        found = decode_findings(beside) if isinstance(beside, bytes) else ()
        return tuple(finding.problem for finding in found)

    async def register_reference_values(self, message: JsonObject) -> None:
        """Store the reference values of an RVPS message."""
        request = rv.ReferenceValueRegisterRequest(message=json.encode(message).decode())
        await self._call(self._values.RegisterReferenceValue, request)

    async def get_reference_value(self, name: str) -> Any:
        """Return a reference value.

        Raises:
            NotFoundError: there is none, or it has expired.
        """
        request = rv.ReferenceValueQueryRequest(reference_value_id=name)
        answer = await self._call(self._values.QueryReferenceValue, request)
        if not answer.HasField("reference_value_results"):
            raise NotFoundError(f"there is no reference value {name!r}")
        value: Any = json.decode(answer.reference_value_results, Any, "the reference value")
        return value

    async def key_set(self) -> bytes:
        """Return the JWK set of the keys that verify its tokens.

        Raises:
            ConfigError: it is not on a channel that we trust.
        """
        if not self._place.is_private:
            raise ConfigError(f"keys are not taken from {self._place.target} without TLS")
        answer = await self._call(self._keys.GetKeySet, keys_pb.GetKeySetRequest())
        return str(answer.jwks).encode()

    async def _call(self, method: Callable[..., Awaitable[T]], request: object) -> T:
        try:
            with calling(self._place.target, _WHAT):
                answer = await method(request, timeout=ANSWER_SECONDS)
            return readable(answer, self._place.target, _WHAT)
        except CocosError as known:
            error = known.__cause__
            if not isinstance(error, aio.AioRpcError) or error.code() not in _REFUSED:
                raise
            for key, value in error.trailing_metadata() or ():
                if key == FINDINGS and isinstance(value, bytes):
                    raise EvidenceError(
                        error.details() or "the evidence does not hold",
                        findings=decode_findings(value),
                    ) from error
            # Another implementation's words may be for its operator only.
            refusal = EvidenceError("the attestation service refuses the evidence")
            raise refusal from known


def _individual(
    tee: Tee, evidence: Any, runtime_data: JsonObject
) -> pb.IndividualAttestationRequest:
    return pb.IndividualAttestationRequest(
        tee=tee.value,
        evidence=base64url.encode(json.encode(evidence)),
        structured_runtime_data=json.encode(runtime_data).decode(),
        runtime_data_hash_algorithm="sha384",
    )


def _is_local(address: str) -> bool:
    try:
        local_address(address)
    except ValueError:
        return False
    return True
