# SPDX-License-Identifier: Apache-2.0
"""Client of the attestation agent, a process of the same machine."""

from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from cocos.clients._local_rpc import LocalChannel
from cocos.errors import FormatError, ProtocolError
from cocos.wire import json
from cocos.wire._generated import attestation_agent_pb2 as pb
from cocos.wire.agent_token import TYPE, TYPE_AT, AgentToken
from cocos.wire.kbs.protocol import Tee

CALL_SECONDS = 130.0
"""A token takes two requests to the KBS, a minute each at most."""

M = TypeVar("M", bound=Message)

_SERVICE = pb.DESCRIPTOR.services_by_name["AttestationAgentService"].full_name
_WHAT = "the attestation agent"
_OTHER_AGENT = "[ERROR:attestation-agent]"


class AttestationAgent:
    """One attestation agent; an async context manager and a ``TokenSource``.

    Every method raises UnreachableError if the agent does not answer, and else the error
    of the agent's status code.

    Args:
        address: ``host:port`` or ``unix:/path`` for gRPC, ``unix:///path`` for ttrpc.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._channel = LocalChannel(address, _WHAT)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._channel.__aexit__(*exc_info)

    async def tee(self) -> Tee:
        """Return the primary TEE.

        Raises:
            ProtocolError: the agent names one that we do not know.
        """
        answer = await self._call("GetTeeType", pb.GetTeeTypeRequest(), pb.GetTeeTypeResponse)
        return self._known(answer.tee)

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        answer = await self._call(
            "GetAdditionalTees", pb.GetAdditionalTeesRequest(), pb.GetAdditionalTeesResponse
        )
        return tuple(self._known(name) for name in answer.additional_tees)

    async def evidence(self, report_data: bytes) -> Any:
        """Return evidence of the primary TEE, as JSON, that carries ``report_data``.

        It answers no challenge of a KBS: for that there is :meth:`kbs_token`.
        """
        answer = await self._call(
            "GetEvidence", pb.GetEvidenceRequest(RuntimeData=report_data), pb.GetEvidenceResponse
        )
        try:
            evidence: Any = json.decode(answer.Evidence, Any, "its evidence")
        except FormatError as error:
            raise ProtocolError(f"{_WHAT} at {self._address}: {error.message}") from error
        return evidence

    async def evidence_text(self, report_data: bytes) -> bytes:
        """Return the same as JSON text, as the agent wrote it."""
        request = pb.GetEvidenceRequest(RuntimeData=report_data)
        return (await self._call("GetEvidence", request, pb.GetEvidenceResponse)).Evidence

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices."""
        answer = await self._call(
            "GetAdditionalEvidence",
            pb.GetAdditionalEvidenceRequest(RuntimeData=report_data),
            pb.GetEvidenceResponse,
        )
        try:
            return answer.Evidence.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{_WHAT} at {self._address} sent evidence in no text") from error

    async def get_token(
        self, token_type: str, *, refused: str = "", runtime_data: bytes = b""
    ) -> bytes:
        """Return a token with its private key: JSON, a secret; or a bare JWT (``coco_as``).

        Args:
            token_type: ``kbs``, ``kbs::URL`` or ``coco_as``; see :mod:`cocos.wire.agent_token`.
            refused: A token that the KBS does not accept any more.
            runtime_data: JSON object that the evidence of a ``coco_as`` token is bound to.
        """
        request = pb.GetTokenRequest(
            TokenType=token_type, Refused=refused, RuntimeData=runtime_data
        )
        return (await self._call("GetToken", request, pb.GetTokenResponse)).Token

    async def kbs_token(self, url: str, *, refused: str = "") -> AgentToken:
        """Return a token of the KBS at ``url``.

        The guest components' own attestation agent knows the KBS of its configuration only,
        and its tokens come without a session.

        Raises:
            AuthenticationError: the KBS does not accept this machine's evidence.
            ProtocolError: the agent's answer is malformed.
        """
        try:
            text = await self.get_token(f"{TYPE_AT}{url}", refused=refused)
        except ProtocolError as error:
            # Another implementation: it knows one KBS and, for all failures, one answer.
            if _OTHER_AGENT not in error.message:
                raise
            text = await self.get_token(TYPE)
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
        request = pb.ExtendRuntimeMeasurementRequest(
            Domain=domain, Operation=operation, Content=content, RegisterIndex=register
        )
        answer = await self._call(
            "ExtendRuntimeMeasurement", request, pb.ExtendRuntimeMeasurementResponse
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
            "BindInitData", pb.BindInitDataRequest(Digest=digest), pb.BindInitDataResponse
        )

    def _known(self, name: str) -> Tee:
        try:
            return Tee(name)
        except ValueError as error:
            raise ProtocolError(
                f"{_WHAT} at {self._address} names a TEE that we do not know: {name!r}"
            ) from error

    async def _call(self, method: str, request: Message, reply: type[M]) -> M:
        return await self._channel.call((_SERVICE, method), request, reply, CALL_SECONDS)
