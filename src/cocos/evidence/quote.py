# SPDX-License-Identifier: Apache-2.0
"""Quotes of Intel's quoting enclaves over SGX enclaves and TDX domains, little-endian.

Versions 3 (SGX), 4 and 5 (TDX) with ECDSA P-256 keys and the PCK certificates inside, after
the "Quoting Library API" of SGX and TDX DCAP, appendix A. Anything else is refused by name.
"""

import base64
import binascii
import re
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final, Self

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.evidence._reader import Reader

ECDSA_P256: Final = 2
SGX: Final = 0
TDX: Final = 0x81
MAX_QUOTE: Final = 2**15
"""Bytes of a quote; real ones have 5,000."""

_VERSIONS: Final = {3: SGX, 4: TDX, 5: TDX}
_TD_BODIES: Final = {2: "1.0", 3: "1.5"}
_QE_REPORT: Final = 6  # type of certification data: the report of the quoting enclave
_PCK_CHAIN: Final = 5  # PEM, leaf first
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*"
)


def _part(size: int, name: str | None = None) -> Any:
    """A member of ``size`` bytes; ``name`` is that of its claim, if it is another."""
    return field(metadata={"size": size, "name": name})


class _Layout:
    """A structure of members one after the other, each as its bytes."""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read one; FormatError if it is cut short."""
        return cls(*(reader.take(member.metadata["size"]) for member in _members(cls)))

    def claims(self) -> JsonObject:
        """Return the members as hex, as they stand in the quote."""
        return {
            member.metadata["name"] or member.name: getattr(self, member.name).hex()
            for member in _members(type(self))
        }


def _members(layout: type[_Layout]) -> tuple[Field[Any], ...]:
    return fields(layout)  # type: ignore[arg-type]  # each of them is a dataclass


@dataclass(frozen=True, slots=True)
class Header(_Layout):
    """The first 48 bytes of a quote; with SGX, ``reserved`` is the QE's and the PCE's SVN."""

    version: bytes = _part(2)
    att_key_type: bytes = _part(2)
    tee_type: bytes = _part(4)
    reserved: bytes = _part(4)
    vendor_id: bytes = _part(16)
    user_data: bytes = _part(20)


@dataclass(frozen=True, slots=True)
class EnclaveReport(_Layout):
    """Report of an SGX enclave, 384 bytes."""

    cpu_svn: bytes = _part(16)
    misc_select: bytes = _part(4)
    reserved1: bytes = _part(12)
    isv_ext_prod_id: bytes = _part(16)
    flags: bytes = _part(8, "attributes.flags")
    xfrm: bytes = _part(8, "attributes.xfrm")
    mr_enclave: bytes = _part(32)
    reserved2: bytes = _part(32)
    mr_signer: bytes = _part(32)
    reserved3: bytes = _part(32)
    config_id: bytes = _part(64)
    isv_prod_id: bytes = _part(2)
    isv_svn: bytes = _part(2)
    config_svn: bytes = _part(2)
    reserved4: bytes = _part(42)
    isv_family_id: bytes = _part(16)
    report_data: bytes = _part(64)


@dataclass(frozen=True, slots=True)
class TdReport(_Layout):
    """Report of a TDX domain, 1.0, 584 bytes."""

    tcb_svn: bytes = _part(16)
    mr_seam: bytes = _part(48)
    mrsigner_seam: bytes = _part(48)
    seam_attributes: bytes = _part(8)
    td_attributes: bytes = _part(8)
    xfam: bytes = _part(8)
    mr_td: bytes = _part(48)
    mr_config_id: bytes = _part(48)
    mr_owner: bytes = _part(48)
    mr_owner_config: bytes = _part(48)
    rtmr_0: bytes = _part(48)
    rtmr_1: bytes = _part(48)
    rtmr_2: bytes = _part(48)
    rtmr_3: bytes = _part(48)
    report_data: bytes = _part(64)

    @property
    def rtmrs(self) -> tuple[bytes, ...]:
        """The four runtime registers."""
        return self.rtmr_0, self.rtmr_1, self.rtmr_2, self.rtmr_3

    @property
    def service_td(self) -> bytes:
        """Digest of the service domains bound to it, such as a migration agent."""
        return b""


@dataclass(frozen=True, slots=True)
class TdReport15(TdReport):
    """Report of a TDX domain, 1.5, 648 bytes."""

    tee_tcb_svn2: bytes = _part(16)
    mr_servicetd: bytes = _part(48)

    @property
    def service_td(self) -> bytes:
        """Digest of the service domains bound to it, such as a migration agent."""
        return self.mr_servicetd


@dataclass(frozen=True, slots=True)
class Quote:
    """A quote.

    Attributes:
        header: Its header.
        kind: Version 5 only: type and size of the body, as they stand there.
        body: What is attested.
        signed: What the attestation key signs.
        signature: ECDSA P-256, r ‖ s.
        attestation_key: Public key, x ‖ y.
        qe_report: Of the quoting enclave that made the key.
        qe_signed: The same as bytes, which the PCK signs.
        qe_signature: ECDSA P-256, r ‖ s.
        qe_auth_data: Hashed into the report of the quoting enclave with the key.
        chain: Certificates, DER, leaf first.
        raw: All of it, without the zeros that may follow.
    """

    header: Header
    kind: tuple[bytes, bytes] | None
    body: EnclaveReport | TdReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: EnclaveReport = field(repr=False)
    qe_signed: bytes = field(repr=False)
    qe_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> "Quote":
        """Parse a quote.

        Raises:
            FormatError: another version, kind of key or form, cut short, or with something
                after its end that is not zeros.
        """
        if len(data) > MAX_QUOTE:
            raise FormatError(f"the quote has {len(data)} bytes; {MAX_QUOTE} are allowed")
        reader = Reader(data, "the quote", "little")
        header = Header.read(reader)
        version = _check(header)
        kind = (reader.take(2), reader.take(4)) if version == max(_VERSIONS) else None
        body = _body(reader, version, kind)
        signed = data[: reader.position]
        rest = Reader(reader.sized32(MAX_QUOTE), "the quote's signature", "little")
        raw = data[: reader.position]
        if any(data[reader.position :]):
            raise FormatError("the quote is followed by something else than zeros")
        signature, key = rest.take(64), rest.take(64)
        if version > min(_VERSIONS):
            rest.expect(rest.u16(), _QE_REPORT, "certification data of type")
            inner = Reader(rest.sized32(MAX_QUOTE), "the quote's certification data", "little")
            rest.end()
            rest = inner
        begin = rest.take(384)
        qe_report = EnclaveReport.read(Reader(begin, "the report of the QE", "little"))
        qe_signature, auth_data = rest.take(64), rest.sized16()
        rest.expect(rest.u16(), _PCK_CHAIN, "certificates of type")
        chain = _certificates(rest.sized32(MAX_QUOTE))
        rest.end()
        return cls(
            header, kind, body, signed, signature, key,
            qe_report, begin, qe_signature, auth_data, chain, raw,
        )  # fmt: skip

    def claims(self) -> JsonObject:
        """Return header and body, and the body's kind in version 5."""
        claims: JsonObject = {"header": self.header.claims(), "body": self.body.claims()}
        if self.kind is not None:
            claims |= {"type": self.kind[0].hex(), "size": self.kind[1].hex()}
        return claims


def _check(header: Header) -> int:
    version, key = (
        int.from_bytes(part, "little") for part in (header.version, header.att_key_type)
    )
    tee = int.from_bytes(header.tee_type, "little")
    if version not in _VERSIONS:
        raise FormatError(f"a quote of version {version}; {[*_VERSIONS]} are known")
    if tee != _VERSIONS[version]:
        raise FormatError(f"a quote of version {version} is not of TEE type {tee:#x}")
    if key != ECDSA_P256:
        raise FormatError(f"the quote has an attestation key of type {key}, not ECDSA P-256")
    return version


def _body(
    reader: Reader, version: int, kind: tuple[bytes, bytes] | None
) -> EnclaveReport | TdReport:
    if version == min(_VERSIONS):
        return EnclaveReport.read(reader)
    if kind is None:
        return TdReport.read(reader)
    number, size = (int.from_bytes(part, "little") for part in kind)
    if number not in _TD_BODIES:
        raise FormatError(f"the quote has a body of type {number}; {[*_TD_BODIES]} are known")
    layout = TdReport15 if _TD_BODIES[number] == "1.5" else TdReport
    begin = reader.position
    body = layout.read(reader)
    reader.expect(size, reader.position - begin, "a body of size")
    return body


def _certificates(data: bytes) -> tuple[bytes, ...]:
    """Return certificates in PEM, which may end in a zero, as DER."""
    text = data.rstrip(b"\0")
    found: list[bytes] = []
    position = 0
    while match := _CERTIFICATE.match(text, position):
        position = match.end()
        try:
            found.append(base64.b64decode(b"".join(match[1].split()), validate=True))
        except binascii.Error as error:
            raise FormatError("the quote has a certificate that is no base64") from error
    if position != len(text):
        raise FormatError("the quote's certificates are not PEM, one after the other")
    return tuple(found)
