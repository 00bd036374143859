# SPDX-License-Identifier: Apache-2.0
"""Use cases of the attestation agent: evidence, tokens, measurements."""

import enum

import structlog

from cocos._types import JsonObject
from cocos.attestation_agent.coco_as import CocoAsTokens
from cocos.attestation_agent.event import tagged_event
from cocos.attestation_agent.machine import Machine
from cocos.attestation_agent.tokens import KbsTokens
from cocos.errors import CallerError, FormatError, StateError
from cocos.wire import json
from cocos.wire.agent_token import TYPE, TYPE_AS, AgentToken
from cocos.wire.kbs.protocol import SESSION_COOKIE, Tee

DIGEST_SIZES = frozenset({32, 48, 64})
"""Bytes of an init-data digest: SHA-256 or SM3, SHA-384, SHA-512."""

_log = structlog.get_logger(__name__)


class Measured(enum.Enum):
    """What became of a measurement."""

    DONE = enum.auto()
    NOT_SUPPORTED = enum.auto()
    """The platform has no register that software cannot reset."""
    NOT_ENABLED = enum.auto()
    """The operator keeps the event log switched off."""


class AttestationAgent:
    """Speaks for this machine to whoever runs on it.

    Args:
        machine: Makes evidence and measures.
        tokens: Where tokens of KBSs come from.
        passports: Where tokens of an attestation service come from; None: nowhere.
    """

    def __init__(
        self, machine: Machine, tokens: KbsTokens, passports: CocoAsTokens | None = None
    ) -> None:
        self._machine = machine
        self._tokens = tokens
        self._passports = passports

    async def tee(self) -> Tee:
        """Return the primary TEE."""
        return await self._machine.tee()

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        return await self._machine.additional_tees()

    async def evidence(self, report_data: bytes) -> bytes:
        """Return compact JSON text of evidence that carries ``report_data`` unchanged."""
        return json.encode(await self._machine.evidence(report_data))

    async def additional_evidence(self, report_data: bytes) -> bytes:
        """Return JSON text, TEE → evidence of each device; no bytes without devices."""
        return (await self._machine.additional_evidence(report_data)).encode()

    async def token(
        self, token_type: str, *, refused: str = "", runtime_data: bytes = b""
    ) -> bytes:
        """Return a token of a KBS and the private key it speaks of, as compact JSON; or a JWT.

        One handshake with a KBS serves every caller until the token is about to expire.
        Tokens of an attestation service are bare JWTs, and each is new.

        Args:
            token_type: ``kbs``, ``kbs::URL`` for another KBS than the configured one, or
                ``coco_as`` for the attestation service.
            refused: An earlier token, which the KBS does not accept any more.
            runtime_data: JSON object that the evidence of a ``coco_as`` token is bound to.

        Raises:
            CallerError: another type, or runtime data that does not go with it.
            StateError: no KBS, or no attestation service, is configured.
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: the KBS does not answer.
        """
        if token_type == TYPE_AS:
            return await self._passport(runtime_data)
        if runtime_data:
            raise CallerError(
                "the evidence of a KBS's token is bound to its handshake, not to runtime data"
            )
        session = await self._tokens.get(token_type, refused=refused)
        pem = session.key.pem().decode("ascii")
        if token_type == TYPE:
            return json.encode(AgentToken(session.token, pem))  # all that guest components know
        cookie = session.cookies.get(SESSION_COOKIE, "")
        return json.encode(AgentToken(session.token, pem, cookie, session.protocol))

    async def _passport(self, runtime_data: bytes) -> bytes:
        if self._passports is None:
            raise StateError(
                "this attestation agent knows no attestation service",
                hint="give it [token_configs.coco_as] url",
            )
        bound: JsonObject = {}
        if runtime_data:
            bound = json.decode(runtime_data, JsonObject, "the runtime data")
        return (await self._passports.get(bound)).encode()

    async def extend_runtime_measurement(
        self, domain: str, operation: str, content: str, register: int | None
    ) -> Measured:
        """Measure an event into a runtime register.

        Whether the platform can do it is looked at before the event, as the guest
        components do.

        Args:
            domain: Who measures, without spaces.
            operation: What happened, without spaces.
            content: What it happened to, one line.
            register: PCR number; the configured one without.

        Raises:
            FormatError: the event is malformed.
            CallerError: events are not measured into that register.
            StateError: the event log is full.
        """
        log = self._machine.log
        if log is None:
            return Measured.NOT_ENABLED
        if not log.supported:
            _log.warning("measurement.unsupported", domain=domain)
            return Measured.NOT_SUPPORTED
        await self._machine.measure(log, tagged_event(domain, operation, content), register)
        _log.info("measurement.extended", domain=domain, operation=operation)
        return Measured.DONE

    async def bind_init_data(self, digest: bytes) -> None:
        """Bind the digest of what the host passed in.

        Where the platform has no place for it the caller is told so. The original answers
        success, and the caller goes on believing that a later owner can see what the host
        passed in.

        Raises:
            FormatError: not the length of a digest.
            IntegrityError: the hardware was started with other init data.
            UnsupportedError: the platform has no place for it.
        """
        if len(digest) not in DIGEST_SIZES:
            raise FormatError(
                f"an init-data digest has 32, 48 or 64 bytes, not {len(digest)}",
            )
        await self._machine.bind_init_data(digest)
