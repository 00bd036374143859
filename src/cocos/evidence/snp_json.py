# SPDX-License-Identifier: Apache-2.0
"""JSON around SNP evidence, as the guest components write it (evidence.md §4.2).

They send a report's fields, not its bytes. The bytes are made again from them, reserved ones
zero; where a report has others there, only its bytes can be verified, which we take, too.
"""

import base64
from typing import Annotated, Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from msgspec import Meta

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import FormatError
from cocos.evidence.snp import (
    FIRST_WITH_CPUID,
    FIRST_WITH_MITIGATIONS,
    REPORT_BYTES,
    SIGNED_BYTES,
    Product,
    Tcb,
)
from cocos.wire import json

MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE_BYTES: Final = 8192
_PEM: Final = b"-----BEGIN "

U8 = Annotated[int, Meta(ge=0, lt=2**8)]
U32 = Annotated[int, Meta(ge=0, lt=2**32)]
Bytes16 = Annotated[tuple[U8, ...], Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[tuple[U8, ...], Meta(min_length=32, max_length=32)]
Bytes48 = Annotated[tuple[U8, ...], Meta(min_length=48, max_length=48)]
Bytes64 = Annotated[tuple[U8, ...], Meta(min_length=64, max_length=64)]
Bytes72 = Annotated[tuple[U8, ...], Meta(min_length=72, max_length=72)]
CertificateBytes = Annotated[tuple[U8, ...], Meta(max_length=MAX_CERTIFICATE_BYTES)]


class TcbJson(msgspec.Struct, frozen=True):
    """Security patch levels; ``fmc`` from Turin on."""

    bootloader: U8
    tee: U8
    snp: U8
    microcode: U8
    fmc: U8 | None = None

    def encode(self, *, with_fmc: bool) -> bytes:
        """Return the 8 bytes."""
        if self.fmc is not None and not with_fmc:
            raise FormatError("the SNP report has a TCB with fmc, and its processor has none")
        fmc = (self.fmc or 0) if with_fmc else None
        return Tcb(self.bootloader, self.tee, self.snp, self.microcode, fmc).encode()


class VersionJson(msgspec.Struct, frozen=True):
    """Version of the firmware."""

    major: U8
    minor: U8
    build: U8

    def encode(self) -> bytes:
        """Return 3 bytes and a reserved one."""
        return bytes([self.build, self.minor, self.major, 0])


class SignatureJson(msgspec.Struct, frozen=True):
    """r and s, little-endian."""

    r: Bytes72
    s: Bytes72


class ReportJson(msgspec.Struct, frozen=True):
    """The fields of a report."""

    version: U32
    guest_svn: U32
    policy: int
    family_id: Bytes16
    image_id: Bytes16
    vmpl: U32
    sig_algo: U32
    current_tcb: TcbJson
    plat_info: int
    key_info: U32
    report_data: Bytes64
    measurement: Bytes48
    host_data: Bytes32
    id_key_digest: Bytes48
    author_key_digest: Bytes48
    report_id: Bytes32
    report_id_ma: Bytes32
    reported_tcb: TcbJson
    chip_id: Bytes64
    committed_tcb: TcbJson
    current: VersionJson
    committed: VersionJson
    launch_tcb: TcbJson
    signature: SignatureJson
    cpuid_fam_id: U8 | None = None
    cpuid_mod_id: U8 | None = None
    cpuid_step: U8 | None = None
    launch_mit_vector: int | None = None
    current_mit_vector: int | None = None

    def encode(self) -> bytes:
        """Return the report's bytes.

        Raises:
            FormatError: a field that its version has is missing, or one that it has not.
        """
        cpuid = self._cpuid()
        if cpuid:
            with_fmc = Product.of(cpuid[0], cpuid[1]) is Product.TURIN
        else:
            with_fmc = self.reported_tcb.fmc is not None

        def tcb(value: TcbJson) -> bytes:
            return value.encode(with_fmc=with_fmc)

        parts = (
            _number(self.version, 4),
            _number(self.guest_svn, 4),
            _number(self.policy, 8),
            bytes(self.family_id),
            bytes(self.image_id),
            _number(self.vmpl, 4),
            _number(self.sig_algo, 4),
            tcb(self.current_tcb),
            _number(self.plat_info, 8),
            _number(self.key_info, 4),
            bytes(4),
            bytes(self.report_data),
            bytes(self.measurement),
            bytes(self.host_data),
            bytes(self.id_key_digest),
            bytes(self.author_key_digest),
            bytes(self.report_id),
            bytes(self.report_id_ma),
            tcb(self.reported_tcb),
            cpuid or bytes(3),
            bytes(21),
            bytes(self.chip_id),
            tcb(self.committed_tcb),
            self.current.encode(),
            self.committed.encode(),
            tcb(self.launch_tcb),
            self._mitigations(),
        )
        signed = b"".join(parts).ljust(SIGNED_BYTES, b"\0")
        signature = bytes((*self.signature.r, *self.signature.s))
        return (signed + signature).ljust(REPORT_BYTES, b"\0")

    def _cpuid(self) -> bytes | None:
        family, model, stepping = self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step
        if self.version < FIRST_WITH_CPUID:
            return None
        if family is None or model is None or stepping is None:
            raise FormatError(f"an SNP report of version {self.version} names its processor")
        return bytes([family, model, stepping])

    def _mitigations(self) -> bytes:
        if self.version < FIRST_WITH_MITIGATIONS:
            return b""
        vectors = (self.launch_mit_vector, self.current_mit_vector)
        return b"".join(_number(vector or 0, 8) for vector in vectors)


class CertificateJson(msgspec.Struct, frozen=True):
    """An entry of the host's certificate table.

    Attributes:
        cert_type: ``VCEK``, ``VLEK``, ``ASK``, ``ARK``, … or an object for another kind.
        data: DER or PEM.
    """

    cert_type: str | dict[str, str]
    data: CertificateBytes


class SnpEvidence(msgspec.Struct, frozen=True):
    """Evidence of kind ``snp``.

    Attributes:
        attestation_report: Its fields, or standard base64 of its bytes.
        cert_chain: What the host provided.
        aael: The attestation agent's events since boot, standard base64, bound through the
            report data (:mod:`cocos.evidence.snp_binding`).
    """

    attestation_report: ReportJson | str
    cert_chain: Annotated[tuple[CertificateJson, ...], Meta(max_length=MAX_CERTIFICATES)] | None = (
        None
    )
    aael: str | None = None

    def report(self) -> bytes:
        """Return the report's bytes.

        Raises:
            FormatError: they cannot be made.
        """
        if isinstance(self.attestation_report, str):
            if len(self.attestation_report) > 2 * REPORT_BYTES:
                raise FormatError("attestation_report is longer than an SNP report")
            return json.b64decode(self.attestation_report, "attestation_report")
        return self.attestation_report.encode()

    def certificates(self) -> dict[str, bytes]:
        """Return kind → DER of the first of each kind.

        Raises:
            FormatError: one does not parse.
        """
        found: dict[str, bytes] = {}
        for entry in self.cert_chain or ():
            if isinstance(entry.cert_type, str) and entry.data:
                found.setdefault(entry.cert_type, as_der(bytes(entry.data)))
        return found


def parse(evidence: Any) -> SnpEvidence:
    """Parse decoded JSON.

    Raises:
        FormatError: another shape.
    """
    try:
        return msgspec.convert(evidence, SnpEvidence)
    except msgspec.ValidationError as error:
        raise FormatError(f"the SNP evidence is malformed: {error}") from error


def of_bytes(report: bytes, certificate: bytes | None = None, kind: str = "VCEK") -> dict[str, Any]:
    """Return evidence as JSON of a raw report, and of the certificate beside it."""
    chain = None if certificate is None else [{"cert_type": kind, "data": list(certificate)}]
    text = base64.b64encode(report).decode("ascii")
    return {"attestation_report": text, "cert_chain": chain}


def as_der(data: bytes) -> bytes:
    """Return a certificate, DER or PEM, as DER.

    Raises:
        FormatError: PEM that is no certificate.
    """
    if not data.lstrip().startswith(_PEM):
        return data
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except UNREADABLE as error:
        raise FormatError(f"a certificate does not parse: {error}") from error
    return certificate.public_bytes(serialization.Encoding.DER)


def _number(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "little")
    except OverflowError as error:
        raise FormatError(f"a number of the SNP report does not fit {size} bytes") from error
