# SPDX-License-Identifier: Apache-2.0
"""Use cases of the attestation agent: evidence, tokens, measurements."""

import enum

import structlog

from cocos.attestation_agent.event import tagged_event
from cocos.attesters import Attester
from cocos.clients.kbs import KbsClient
from cocos.errors import CallerError, FormatError, StateError, UnsupportedError
from cocos.wire import json
from cocos.wire.kbs import Tee

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
        attester: Makes evidence.
        kbs: Where tokens come from; None without a configured KBS.
        measure: Whether runtime measurements are on.
        register: PCR number for measurements that name none.
    """

    def __init__(
        self, attester: Attester, *, kbs: KbsClient | None, measure: bool, register: int
    ) -> None:
        self._attester = attester
        self._kbs = kbs
        self._measure = measure
        self._register = register

    async def tee(self) -> Tee:
        """Return the primary TEE."""
        return await self._attester.tee()

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        return await self._attester.additional_tees()

    async def evidence(self, report_data: bytes) -> bytes:
        """Return compact JSON text of evidence that carries ``report_data`` unchanged."""
        return json.encode(await self._attester.evidence(report_data))

    async def additional_evidence(self, report_data: bytes) -> bytes:
        """Return JSON text, TEE → evidence of each device; no bytes without devices."""
        return (await self._attester.additional_evidence(report_data)).encode()

    async def token(self, token_type: str) -> bytes:
        """Return a token and the private key it speaks of, as compact JSON.

        One handshake serves every caller until the token is about to expire.

        Args:
            token_type: ``kbs``, the only one whose tokens carry a nonce and a key.

        Raises:
            CallerError: another type.
            StateError: no KBS is configured.
            AuthenticationError: the KBS does not accept our evidence.
            UnreachableError: the KBS does not answer.
        """
        if token_type != "kbs":  # noqa: S105 - a type, not a token
            raise CallerError(
                f"tokens of type {token_type!r} are not made here",
                hint="ask for kbs; tokens without nonce and key prove nothing",
            )
        if self._kbs is None:
            raise StateError(
                "this attestation agent knows no KBS",
                hint="start it with AA_KBC_PARAMS=cc_kbc::URL or [token_configs.kbs] url",
            )
        session = await self._kbs.session()
        pair = {"token": session.token, "tee_keypair": session.key.pem().decode("ascii")}
        return json.encode(pair)

    async def extend_runtime_measurement(
        self, domain: str, operation: str, content: str, register: int | None
    ) -> Measured:
        """Measure an event into a runtime register.

        Args:
            domain: Who measures, without spaces.
            operation: What happened, without spaces.
            content: What it happened to, one line.
            register: PCR number; the configured one without.

        Raises:
            FormatError: the event is malformed.
        """
        event = tagged_event(domain, operation, content)
        if not self._measure:
            return Measured.NOT_ENABLED
        try:
            await self._attester.extend_register(
                self._register if register is None else register, event
            )
        except UnsupportedError as error:
            _log.warning("measurement.unsupported", domain=domain, problem=error.message)
            return Measured.NOT_SUPPORTED
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
        await self._attester.bind_init_data(digest)
