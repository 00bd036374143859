# SPDX-License-Identifier: Apache-2.0
"""An Intel of our own: root, PCK and TCB certificates, collateral, and a quoting enclave."""

import base64
import copy
import datetime as dt
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from cocos.verifiers.collateral import Held, Item

NOW: Final = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
DAY: Final = dt.timedelta(days=1)
YEAR: Final = 365 * DAY
FMSPC: Final = bytes.fromhex("00806f050000")
VENDOR: Final = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_SIGNER: Final = bytes(range(32))
COMPONENTS: Final = (5, 4, 3, 2, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0)
TDX_COMPONENTS: Final = (5, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
PCESVN: Final = 13
AUTH: Final = bytes(range(32))
_SGX: Final = "1.2.840.113741.1.13.1"


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    head = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + head + body


def _oid(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    body = bytes([40 * first + second])
    for number in rest:
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | number & 0x7F)
        body += bytes(reversed(groups))
    return _der(6, body)


def _number(value: int) -> bytes:
    return _der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _named(name: str, value: bytes) -> bytes:
    return _der(0x30, _oid(f"{_SGX}.{name}") + value)


@dataclass(frozen=True)
class Platform:
    """What the certificate of a processor's PCK says of it."""

    components: tuple[int, ...] = COMPONENTS
    pcesvn: int = PCESVN
    fmspc: bytes = FMSPC
    pceid: bytes = bytes(2)
    sgx_type: int = 1
    instance: bytes | None = bytes(range(16))
    flags: tuple[bool, bool, bool] | None = (True, False, True)

    def extension(self) -> bytes:
        tcb = b"".join(_named(f"2.{n}", _number(svn)) for n, svn in enumerate(self.components, 1))
        tcb += _named("2.17", _number(self.pcesvn))
        tcb += _named("2.18", _der(4, bytes(self.components)))
        parts = _named("1", _der(4, bytes(16))) + _named("2", _der(0x30, tcb))
        parts += _named("3", _der(4, self.pceid)) + _named("4", _der(4, self.fmspc))
        parts += _named("5", _der(10, bytes([self.sgx_type])))
        if self.instance is not None:
            parts += _named("6", _der(4, self.instance))
        if self.flags is not None:
            flags = (_der(1, b"\xff" if flag else b"\0") for flag in self.flags)
            parts += _named(
                "7", _der(0x30, b"".join(_named(f"7.{n}", f) for n, f in enumerate(flags, 1)))
            )
        return _der(0x30, parts)


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    platform: Platform | None = None,
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + YEAR,
    serial: int | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=1 if ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not ca,
                content_commitment=not ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if platform is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), platform.extension())
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> str:
    return "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in certificates)


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _time(when: dt.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def enclave(report_data: bytes, **changes: bytes) -> bytes:
    """An SGX report body; members by name, as in the layout of evidence.md §5.3."""
    fields = {
        "cpu_svn": bytes(COMPONENTS),
        "misc_select": bytes(4),
        "reserved1": bytes(12),
        "isv_ext_prod_id": bytes(16),
        "attributes": struct.pack("<QQ", 0x15, 0xE7),
        "mr_enclave": b"\x11" * 32,
        "reserved2": bytes(32),
        "mr_signer": QE_SIGNER,
        "reserved3": bytes(32),
        "config_id": bytes(64),
        "isv_prod_id": struct.pack("<H", 2),
        "isv_svn": struct.pack("<H", 4),
        "config_svn": bytes(2),
        "reserved4": bytes(42),
        "isv_family_id": bytes(16),
        "report_data": report_data.ljust(64, b"\0"),
    }
    assert changes.keys() <= fields.keys()
    return b"".join((fields | changes).values())


TD_FIELDS: Final = {
    "tcb_svn": bytes(TDX_COMPONENTS),
    "mr_seam": b"\x22" * 48,
    "mrsigner_seam": bytes(48),
    "seam_attributes": bytes(8),
    "td_attributes": struct.pack("<Q", 1 << 28),
    "xfam": bytes.fromhex("e742060000000000"),
    "mr_td": b"\x33" * 48,
    "mr_config_id": bytes(48),
    "mr_owner": bytes(48),
    "mr_owner_config": bytes(48),
    "rtmr_0": bytes(48),
    "rtmr_1": bytes(48),
    "rtmr_2": bytes(48),
    "rtmr_3": bytes(48),
    "report_data": bytes(64),
}
TD15_FIELDS: Final = {**TD_FIELDS, "tee_tcb_svn2": bytes(TDX_COMPONENTS), "mr_servicetd": bytes(48)}


def td(report_data: bytes, *, newer: bool = False, **changes: bytes) -> bytes:
    """A TD report body, 1.0 or 1.5."""
    fields = TD15_FIELDS if newer else TD_FIELDS
    assert changes.keys() <= fields.keys()
    values = {**fields, "report_data": report_data.ljust(64, b"\0"), **changes}
    return b"".join(values.values())


@dataclass
class Intel:
    """Everybody whom a quote and its collateral are signed by.

    Attributes:
        platform: Of the processor.
        ca: Name of the CA of its PCK, ``platform`` or ``processor``.
    """

    platform: Platform = field(default_factory=Platform)
    ca: str = "platform"
    root_name: str = "Intel SGX Root CA"

    def __post_init__(self) -> None:
        self.root_key, self.ca_key, self.tcb_key = _key(), _key(), _key()
        self.pck_key, self.attestation_key = _key(), _key()
        self.ca_name = f"Intel SGX PCK {self.ca.title()} CA"
        self.root = self.issue(self.root_name, self.root_key, ca=True)
        self.intermediate = self.issue(self.ca_name, self.ca_key, ca=True)
        self.tcb_signer = self.issue("Intel SGX TCB Signing", self.tcb_key, ca=False)
        self.pck = self.pck_of(self.platform)
        self.tcb_info = copy.deepcopy(_TCB_INFO)
        self.qe_identity = copy.deepcopy(_QE_IDENTITY)
        self.revoked: list[int] = []
        self.revoked_cas: list[int] = []

    def issue(self, name: str, key: ec.EllipticCurvePrivateKey, **more: Any) -> x509.Certificate:
        """Return a certificate of the root's."""
        return certificate(name, key, self.root_name, self.root_key, **more)

    def pck_of(self, platform: Platform, **more: Any) -> x509.Certificate:
        """Return a processor's certificate."""
        return certificate(
            "Intel SGX PCK Certificate",
            self.pck_key,
            self.ca_name,
            self.ca_key,
            ca=False,
            platform=platform,
            **more,
        )

    @property
    def chain(self) -> str:
        return pem(self.pck, self.intermediate, self.root)

    def quote(
        self,
        body: bytes,
        *,
        version: int = 4,
        chain: str | None = None,
        qe: bytes | None = None,
        auth: bytes = AUTH,
        header: bytes | None = None,
        certification: int = 5,
        tail: bytes = b"",
    ) -> bytes:
        """Return a quote over a TD's or, in version 3, an enclave's report."""
        tee = 0 if len(body) == 384 else 0x81
        signed = header or struct.pack("<HHI4x", version, 2, tee) + VENDOR + bytes(20)
        if version == 5:
            signed += struct.pack("<HI", {384: 1, 584: 2, 648: 3}[len(body)], len(body))
        signed += body
        numbers = self.attestation_key.public_key().public_numbers()
        key = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        report = qe or enclave(hashlib.sha256(key + auth).digest())
        certified = report + raw_signature(self.pck_key, report)
        certified += struct.pack("<H", len(auth)) + auth
        text = (self.chain if chain is None else chain).encode()
        certified += struct.pack("<HI", certification, len(text)) + text
        signature = raw_signature(self.attestation_key, signed) + key
        if version > 3:
            certified = struct.pack("<HI", 6, len(certified)) + certified
        signature += certified
        return signed + struct.pack("<I", len(signature)) + signature + tail

    def crl(
        self, *, root: bool, begin: dt.datetime = NOW - DAY, end: dt.datetime = NOW + 30 * DAY
    ) -> bytes:
        name, key = (self.root_name, self.root_key) if root else (self.ca_name, self.ca_key)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .last_update(begin)
            .next_update(end)
            .add_extension(x509.CRLNumber(7 if root else 8), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
        )
        for serial in self.revoked_cas if root else self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(begin)
            builder = builder.add_revoked_certificate(entry.build())
        crl = builder.sign(key, hashes.SHA256())
        return crl.public_bytes(serialization.Encoding.DER)

    def signed(self, name: str, inner: Any) -> str:
        """Return a document of the PCS: the inner object's very text is signed."""
        text = json.dumps(inner, separators=(",", ":"))
        signature = raw_signature(self.tcb_key, text.encode()).hex()
        return f'{{"{name}":{text},"signature":"{signature}"}}'

    def held(self, kind: str = "tdx", changes: Mapping[str, bytes | None] | None = None) -> Held:
        """Return everything that a quote of this platform needs; None leaves one out."""
        found: dict[str, bytes | None] = {
            f"tcb/{kind}/{self.platform.fmspc.hex()}": self.signed(
                "tcbInfo", self.tcb_info
            ).encode(),
            f"qe/{kind}": self.signed("enclaveIdentity", self.qe_identity).encode(),
            "chain/tcb": self.tcb_chain().encode(),
            f"crl/{self.ca}": self.crl(root=False),
            f"chain/{self.ca}": self.crl_chain().encode(),
            "crl/root": self.crl(root=True),
        }
        found |= changes or {}
        late = NOW + 9999 * DAY
        return Held(
            {f"intel/{name}": Item(data, NOW, late) for name, data in found.items() if data}
        )

    def tcb_chain(self) -> str:
        return pem(self.tcb_signer, self.root)

    def crl_chain(self) -> str:
        return pem(self.intermediate, self.root)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def components(*svns: int) -> list[dict[str, int]]:
    return [{"svn": svn} for svn in svns]


def level(
    status: str,
    sgx: tuple[int, ...] = COMPONENTS,
    tdx: tuple[int, ...] | None = TDX_COMPONENTS,
    pcesvn: int = PCESVN,
    advisories: tuple[str, ...] = (),
) -> dict[str, Any]:
    tcb: dict[str, Any] = {"sgxtcbcomponents": components(*sgx), "pcesvn": pcesvn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = components(*tdx)
    found: dict[str, Any] = {"tcb": tcb, "tcbDate": "2026-02-14T00:00:00Z", "tcbStatus": status}
    if advisories:
        found["advisoryIDs"] = list(advisories)
    return found


def sgx_tcb_info() -> dict[str, Any]:
    """TCB info of the same processor for SGX."""
    info = copy.deepcopy(_TCB_INFO)
    info["id"] = "SGX"
    del info["tdxModule"], info["tdxModuleIdentities"]
    info["tcbLevels"] = [level("UpToDate", tdx=None)]
    return info


_MODULE: Final = {
    "mrsigner": "00" * 48,
    "attributes": "00" * 8,
    "attributesMask": "FF" * 8,
}
_TCB_INFO: Final[dict[str, Any]] = {
    "id": "TDX",
    "version": 3,
    "issueDate": _time(NOW - DAY),
    "nextUpdate": _time(NOW + 29 * DAY),
    "fmspc": FMSPC.hex().upper(),
    "pceId": "0000",
    "tcbType": 0,
    "tcbEvaluationDataNumber": 18,
    "tdxModule": _MODULE,
    "tdxModuleIdentities": [
        {
            "id": "TDX_01",
            **_MODULE,
            "tcbLevels": [
                {
                    "tcb": {"isvsvn": 5},
                    "tcbDate": "2026-02-14T00:00:00Z",
                    "tcbStatus": "UpToDate",
                },
                {
                    "tcb": {"isvsvn": 2},
                    "tcbDate": "2023-08-09T00:00:00Z",
                    "tcbStatus": "OutOfDate",
                    "advisoryIDs": ["INTEL-SA-00001"],
                },
            ],
        }
    ],
    "tcbLevels": [
        level("UpToDate"),
        level("OutOfDate", (1,) * 5 + (0,) * 11, (0,) * 16, 5, ("INTEL-SA-00002",)),
    ],
}
_QE_IDENTITY: Final[dict[str, Any]] = {
    "id": "TD_QE",
    "version": 2,
    "issueDate": _time(NOW - DAY),
    "nextUpdate": _time(NOW + 29 * DAY),
    "tcbEvaluationDataNumber": 18,
    "miscselect": "00000000",
    "miscselectMask": "FFFFFFFF",
    "attributes": "11000000000000000000000000000000",
    "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
    "mrsigner": QE_SIGNER.hex().upper(),
    "isvprodid": 2,
    "tcbLevels": [
        {"tcb": {"isvsvn": 4}, "tcbDate": "2026-02-14T00:00:00Z", "tcbStatus": "UpToDate"},
        {"tcb": {"isvsvn": 2}, "tcbDate": "2023-02-14T00:00:00Z", "tcbStatus": "OutOfDate"},
    ],
}
