# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0: evidence is a quote of all PCRs with the logs that explain them.

The form is that of the guest components with more members: the logs, the command line,
and the proof that the attestation key lives in the TPM of the handshake's endorsement-key
certificate (credential activation, TPM 2.0 Library Specification, part 1 §24).
"""

import base64
from typing import Any, ClassVar, Final, Self

import msgspec

from cocos._types import JsonObject
from cocos.attesters._base import (
    AttestationKey,
    Attester,
    Devices,
    SignedQuote,
    TpmDevice,
    check_report_data,
)
from cocos.crypto.tpm_credential import proof
from cocos.errors import (
    FormatError,
    IntegrityError,
    ProtocolError,
    StateError,
    UnsupportedError,
)
from cocos.evidence.tpm import PCR_COUNT, Quote, extend, pcr_digest
from cocos.evidence.tpm_json import Credential, QuoteJson, TpmChallenge, TpmEvidence, TpmParams
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

INIT_DATA_REGISTER: Final = 8
EVENT_REGISTER: Final = 14
"""PCR of runtime events. Firmware, boot loader and systemd leave it alone; software can
reset 16 and 23."""

MEMBER: Final = "tpm"
"""Name of our members of ``extra-params``."""

_ATTEMPTS: Final = 8  # to see the same PCRs in a quote and in what is read after it
_DIGEST_BYTES: Final = 32
_FRESH: Final = bytes(_DIGEST_BYTES)


class TpmAttester(Attester):
    """Makes evidence with a TPM.

    Args:
        device: The TPM.
    """

    kind: ClassVar[Tee] = Tee.TPM
    register_hash: str | None = "sha256"
    default_register: ClassVar[int] = EVENT_REGISTER

    def __init__(self, device: TpmDevice) -> None:
        self._device = device

    @classmethod
    async def detect(cls, devices: Devices) -> Self | None:
        """Return an attester if this machine has a TPM."""
        return None if devices.tpm is None else cls(devices.tpm)

    async def auth_params(self) -> JsonObject:
        """Return the endorsement key's certificate and our attestation key.

        Without a certificate there is nothing to say: such evidence counts only where an
        operator registered the attestation key.
        """
        certificate = await self._device.ek_certificate()
        if certificate is None:
            return {}
        key = await self._device.attestation_key()
        params = TpmParams(ek_certificate=_b64(certificate), ak_public=_b64(key.public))
        return {MEMBER: msgspec.to_builtins(params)}

    async def evidence(
        self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
    ) -> Any:
        """Return a quote that carries all of ``report_data``, the logs, and the proof.

        Raises:
            FormatError: ``report_data`` is too long, or the challenge is malformed.
            IntegrityError: the challenge is for another TPM.
            StateError: the PCRs do not stand still.
            UnreachableError: the TPM does not answer.
        """
        check_report_data(report_data)
        credential = await self._answer(challenge, report_data)
        key, quote, pcrs = await self._quote(report_data)
        evidence = TpmEvidence(
            tpm_quote=QuoteJson(
                signature=_b64(quote.signature),
                message=_b64(quote.message),
                pcrs=tuple(value.hex() for value in pcrs),
            ),
            ak_public=_b64(key.spki),
            event_log=_b64(await self._device.boot_log()),
            aael=_b64(events),
            credential=credential,
            cmdline=await self._device.command_line(),
        )
        return msgspec.to_builtins(evidence)

    async def read_register(self, index: int) -> bytes:
        """Return the value of the PCR of runtime events."""
        self._check_register(index)
        return (await self._device.pcrs())[index]

    async def extend_register(self, index: int, digest: bytes) -> None:
        """Extend the PCR of runtime events."""
        self._check_register(index)
        await self._device.extend(index, digest)

    async def bind_init_data(self, digest: bytes) -> None:
        """Extend PCR 8 once per boot: it then is SHA-256(32 zero bytes ‖ ``digest``).

        Raises:
            IntegrityError: PCR 8 holds something else already.
            UnsupportedError: not a SHA-256 digest.
        """
        if len(digest) != _DIGEST_BYTES:
            raise UnsupportedError(
                f"a TPM binds init data by SHA-256, not by a digest of {len(digest)} bytes",
                hint='write algorithm = "sha256" into the init data',
            )
        wanted = extend(_FRESH, digest)
        found = (await self._device.pcrs())[INIT_DATA_REGISTER]
        if found == _FRESH:
            await self._device.extend(INIT_DATA_REGISTER, digest)
            found = (await self._device.pcrs())[INIT_DATA_REGISTER]
        if found != wanted:
            raise IntegrityError(
                f"this machine was started with other init data: PCR {INIT_DATA_REGISTER} is "
                f"{found.hex()}, not {wanted.hex()}",
                hint="a PCR is reset only by a reboot",
            )

    async def _answer(self, challenge: JsonObject | None, report_data: bytes) -> Credential | None:
        member = None if challenge is None else challenge.get(MEMBER)
        if member is None:
            return None
        try:
            given = msgspec.convert(member, TpmChallenge)
        except msgspec.ValidationError as error:
            raise FormatError(f"the KBS's challenge to the TPM is malformed: {error}") from error
        secret = await self._device.activate(
            json.b64decode(given.credential_blob, "the challenge's credential_blob"),
            json.b64decode(given.encrypted_secret, "the challenge's encrypted_secret"),
        )
        return Credential(proof=_b64(proof(secret, report_data)))

    async def _quote(
        self, report_data: bytes
    ) -> tuple[AttestationKey, SignedQuote, tuple[bytes, ...]]:
        """Return a quote and the PCRs that it is over: others may extend some in between."""
        key = await self._device.attestation_key()
        for _ in range(_ATTEMPTS):
            signed = await self._device.quote(report_data)
            pcrs = await self._device.pcrs()
            if len(pcrs) != PCR_COUNT:
                raise ProtocolError(f"the TPM has {len(pcrs)} SHA-256 PCRs, not {PCR_COUNT}")
            try:
                quote = Quote.parse(signed.message)
            except FormatError as error:
                raise ProtocolError(f"the TPM's answer: {error.message}") from error
            if quote.pcr_digest == pcr_digest(pcrs):
                return key, signed, pcrs
        raise StateError(
            "the PCRs change faster than they can be quoted", hint="something extends them"
        )

    def _check_register(self, index: int) -> None:
        if index != EVENT_REGISTER:
            raise UnsupportedError(
                f"runtime events are measured into PCR {EVENT_REGISTER}, not {index}",
                hint="name that register or none; the others belong to the boot, or software "
                "can reset them",
            )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
