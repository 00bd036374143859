# SPDX-License-Identifier: Apache-2.0
"""What every attester can do, and the devices that attesters use."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from cocos._types import JsonObject
from cocos.attesters._devices import SnpDevice, TdxDevice
from cocos.errors import FormatError, UnsupportedError
from cocos.wire.json import encode
from cocos.wire.kbs.protocol import Tee

MAX_REPORT_DATA = 64
"""Bytes of report data that the hardware has room for."""


@dataclass(frozen=True, slots=True)
class AttestationKey:
    """Public part of a TPM's attestation key.

    Attributes:
        public: TPM2B_PUBLIC.
        spki: DER SubjectPublicKeyInfo of the same key.
    """

    public: bytes
    spki: bytes


@dataclass(frozen=True, slots=True)
class SignedQuote:
    """What TPM2_Quote returns: TPMS_ATTEST without its length, and TPMT_SIGNATURE."""

    message: bytes
    signature: bytes


class TpmDevice(Protocol):
    """A TPM 2.0 and what its firmware logged.

    Every method raises UnreachableError when the TPM does not answer, and ProtocolError
    when it refuses.
    """

    async def attestation_key(self) -> AttestationKey:
        """Return a restricted RSA-2048 signing key that never leaves the TPM."""
        ...

    async def ek_certificate(self) -> bytes | None:
        """Return the certificate of the RSA endorsement key, DER; None if there is none."""
        ...

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        """Return the secret that was protected for the endorsement and attestation keys.

        Args:
            credential_blob: TPM2B_ID_OBJECT.
            encrypted_secret: TPM2B_ENCRYPTED_SECRET.

        Raises:
            IntegrityError: it was protected for another TPM or another key.
        """
        ...

    async def quote(self, data: bytes) -> SignedQuote:
        """Sign the SHA-256 PCRs 0 to 23, with ``data`` in the signature."""
        ...

    async def pcrs(self) -> tuple[bytes, ...]:
        """Return the SHA-256 PCRs 0 to 23."""
        ...

    async def extend(self, index: int, digest: bytes) -> None:
        """Extend a SHA-256 PCR."""
        ...

    async def boot_log(self) -> bytes:
        """Return the firmware's TCG event log; empty if the kernel shows none."""
        ...

    async def command_line(self) -> str:
        """Return the kernel's command line."""
        ...


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of this machine that attesters may use; None where there is none."""

    tpm: TpmDevice | None = None
    snp: SnpDevice | None = None
    tdx: TdxDevice | None = None


class DeviceAttester(abc.ABC):
    """Makes evidence about one device beside the CPU.

    Attributes:
        kind: The kind of device.
    """

    kind: ClassVar[Tee]

    @abc.abstractmethod
    async def evidence(self, report_data: bytes) -> Any:
        """Return fresh evidence, as JSON, that carries ``report_data``."""


class Attester(abc.ABC):
    """Makes evidence about the machine that it runs on.

    Attributes:
        kind: The TEE whose evidence this attester makes.
        insecure: The evidence proves nothing; the attester is used only when allowed by name.
        register_hash: Name of the hash of its runtime registers; None without registers
            that software cannot reset.
        events_in_report: Without registers, evidence itself carries the log of events, bound
            to its report data.
        default_register: Number of the register for events that name none.
        logged_as: Its number in the event log, if that is another.
        devices: What is attested beside the CPU; one of each kind.
    """

    kind: ClassVar[Tee]
    insecure: ClassVar[bool] = False
    register_hash: str | None = None
    events_in_report: ClassVar[bool] = False
    default_register: ClassVar[int] = 17
    logged_as: ClassVar[int | None] = None
    devices: tuple[DeviceAttester, ...] = ()

    @classmethod
    @abc.abstractmethod
    async def detect(cls, devices: Devices) -> Self | None:
        """Return an attester if this machine has what it needs, else None."""

    async def tee(self) -> Tee:
        """Return the TEE whose evidence this is."""
        return self.kind

    async def auth_params(self) -> JsonObject:
        """Return what the KBS must know before it challenges us: members of extra-params."""
        return {}

    @abc.abstractmethod
    async def evidence(
        self, report_data: bytes, challenge: JsonObject | None = None, *, events: bytes = b""
    ) -> Any:
        """Return fresh evidence, as JSON.

        Args:
            report_data: What the evidence must carry; hardware has room for
                :data:`MAX_REPORT_DATA` bytes.
            challenge: ``extra-params`` of the KBS's challenge, if one asked for it.
            events: Log of the events that were measured at run time.

        Raises:
            FormatError: ``report_data`` is too long.
        """

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        return tuple(device.kind for device in self.devices)

    async def additional_evidence(self, report_data: bytes) -> str:
        """Return JSON text, TEE → evidence of each device; empty without devices.

        Args:
            report_data: As for :meth:`evidence`; the devices' differs from the CPU's.
        """
        if not self.devices:
            return ""
        found = {device.kind: await device.evidence(report_data) for device in self.devices}
        return encode(found).decode()

    async def read_register(self, index: int) -> bytes:
        """Return the present value of a runtime register.

        Raises:
            UnsupportedError: the platform has no such register.
        """
        raise self._no_register(index)

    async def extend_register(self, index: int, digest: bytes) -> None:  # noqa: ARG002
        """Extend a runtime register, one that software cannot reset.

        Args:
            index: Register as a PCR number; the platform maps it to its own.
            digest: Of what is measured, with :attr:`register_hash`.

        Raises:
            UnsupportedError: the platform has no such register.
        """
        raise self._no_register(index)

    async def bind_init_data(self, digest: bytes) -> None:
        """Bind what the host passed in: compare with the hardware's field, or measure.

        Args:
            digest: Hash of the init data, with the hash that the init data names.

        Raises:
            IntegrityError: the hardware was started with other init data.
            UnsupportedError: the platform has no place for it.
        """
        raise UnsupportedError(
            f"{self.kind} cannot bind init data (digest of {len(digest)} bytes)",
            hint="evidence of this platform does not prove what the host passed in",
        )

    def _no_register(self, index: int) -> UnsupportedError:
        return UnsupportedError(f"{self.kind} has no runtime measurement register {index}")


def check_report_data(report_data: bytes) -> None:
    """Raise FormatError if the hardware has no room for ``report_data``."""
    if len(report_data) > MAX_REPORT_DATA:
        raise FormatError(
            f"report data of {len(report_data)} bytes is longer than {MAX_REPORT_DATA}",
            hint="pass a digest",
        )
