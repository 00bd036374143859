# SPDX-License-Identifier: Apache-2.0
"""Client of the attestation agent: plaintext gRPC to a process of the same machine."""

from collections.abc import Awaitable
from typing import Any, Self, TypeVar

import grpc
from grpc import aio

from cocos.errors import FormatError, ProtocolError
from cocos.transport.rpc import client_error
from cocos.wire import json
from cocos.wire._generated import attestation_agent_pb2 as pb
from cocos.wire._generated import attestation_agent_pb2_grpc as pb_grpc
from cocos.wire.agent_token import TYPE_AT, AgentToken
from cocos.wire.kbs import Tee

CALL_SECONDS = 130.0
"""A token takes two requests to the KBS, a minute each at most."""

T = TypeVar("T")

_WHAT = "the attestation agent"


class AttestationAgent:
    """One attestation agent; an async context manager and a ``TokenSource``.

    Every method raises UnreachableError if the agent does not answer, and else the error
    of the agent's status code.

    Args:
        address: ``host:port`` or ``unix:/path``.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        # A proxy that the environment names has no business between the two.
        self._channel = aio.insecure_channel(self._address, options=[("grpc.enable_http_proxy", 0)])
        self._stub = pb_grpc.AttestationAgentServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def tee(self) -> Tee:
        """Return the primary TEE.

        Raises:
            ProtocolError: the agent names one that we do not know.
        """
        answer = await self._call(
            self._stub.GetTeeType(pb.GetTeeTypeRequest(), timeout=CALL_SECONDS)
        )
        return self._known(answer.tee)

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        answer = await self._call(
            self._stub.GetAdditionalTees(pb.GetAdditionalTeesRequest(), timeout=CALL_SECONDS)
        )
        return tuple(self._known(name) for name in answer.additional_tees)

    async def evidence(self, report_data: bytes) -> Any:
        """Return evidence of the primary TEE, as JSON, that carries ``report_data``.

        It answers no challenge of a KBS: for that there is :meth:`kbs_token`.
        """
        answer = await self._call(
            self._stub.GetEvidence(
                pb.GetEvidenceRequest(RuntimeData=report_data), timeout=CALL_SECONDS
            )
        )
        try:
            evidence: Any = json.decode(answer.Evidence, Any, "its evidence")
        except FormatError as error:
            raise ProtocolError(f"{_WHAT} at {self._address}: {error.message}") from error
        return evidence

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices."""
        answer = await self._call(
            self._stub.GetAdditionalEvidence(
                pb.GetAdditionalEvidenceRequest(RuntimeData=report_data), timeout=CALL_SECONDS
            )
        )
        try:
            return answer.Evidence.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{_WHAT} at {self._address} sent evidence in no text") from error

    async def get_token(self, token_type: str, *, refused: str = "") -> bytes:
        """Return a token with its private key: JSON, a secret.

        Args:
            token_type: ``kbs`` or ``kbs::URL``; see :mod:`cocos.wire.agent_token`.
            refused: A token that the KBS does not accept any more.
        """
        answer = await self._call(
            self._stub.GetToken(
                pb.GetTokenRequest(TokenType=token_type, Refused=refused), timeout=CALL_SECONDS
            )
        )
        return answer.Token

    async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
        """Return a token of the KBS at ``url``.

        Raises:
            AuthenticationError: the KBS does not accept this machine's evidence.
            ProtocolError: the agent's answer is malformed.
        """
        text = await self.get_token(f"{TYPE_AT}{url}", refused=refused)
        try:
            token: AgentToken = json.decode(text, AgentToken, "its token")
        except FormatError as error:
            raise ProtocolError(f"{_WHAT} at {self._address} sent a malformed token") from error
        return token

    async def extend_runtime_measurement(
        self, domain: str, operation: str, content: str, *, register: int | None = None
    ) -> str:
        """Add an event to the event log and to a runtime register.

        Args:
            domain: Who measures, without spaces.
            operation: What happened, without spaces.
            content: What it happened to, one line.
            register: PCR number; the agent's default without.

        Returns:
            ``OK``; ``NOT_SUPPORTED``: the platform has no such register; ``NOT_ENABLED``:
            the agent keeps no event log.
        """
        answer = await self._call(
            self._stub.ExtendRuntimeMeasurement(
                pb.ExtendRuntimeMeasurementRequest(
                    Domain=domain, Operation=operation, Content=content, RegisterIndex=register
                ),
                timeout=CALL_SECONDS,
            )
        )
        try:
            return pb.RuntimeMeasurementResult.Name(answer.Result)
        except ValueError as error:
            raise ProtocolError(
                f"{_WHAT} at {self._address} answered result {answer.Result}"
            ) from error

    async def bind_init_data(self, digest: bytes) -> None:
        """Bind the digest of the init data.

        Raises:
            StateError: the platform cannot bind init data.
            IntegrityError: the hardware was started with other init data.
        """
        await self._call(
            self._stub.BindInitData(pb.BindInitDataRequest(Digest=digest), timeout=CALL_SECONDS)
        )

    def _known(self, name: str) -> Tee:
        try:
            return Tee(name)
        except ValueError as error:
            raise ProtocolError(
                f"{_WHAT} at {self._address} names a TEE that we do not know: {name!r}"
            ) from error

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.RpcError as error:
            raise client_error(self._address, error, _WHAT) from error
