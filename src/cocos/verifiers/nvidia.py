# SPDX-License-Identifier: Apache-2.0
"""Evidence of NVIDIA's GPUs: signed measurements, and who certifies the key that signed.

Beside what Trustee's local verifier checks: every certificate is valid today and may do what
it does, the first one is of the family that the evidence names, and no GPU counts twice.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.crypto.certificates import UNREADABLE
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.nvidia import NONCE_BYTES, DeviceJson, NvidiaEvidence, Report
from cocos.verifiers import _pinned
from cocos.verifiers._base import Authentic, Expected, Part, Verifier
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

ROOT: Final = "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4"
"""Key of ``NVIDIA Device Identity CA``: SHA-256 of its SubjectPublicKeyInfo."""

_MOST_DEVICES: Final = 16
_MOST_TEXT: Final = 32 * 2**10
_MOST_CERTIFICATES: Final = 6
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})+", re.ASCII | re.IGNORECASE)
_FAMILIES: Final = {"HOPPER": ("Hopper", "GH100 ")}
"""Architecture → its claim, and how the name of such a device's certificate begins."""
_BY_SERVICE: Final = {"BLACKWELL", "LS10"}
_FWID: Final = x509.ObjectIdentifier("2.23.133.5.4.1")
_FWID_BEFORE: Final = bytes.fromhex("06096086480165030402020430")  # SHA-384, 48 bytes
_FWID_BYTES: Final = 48


@dataclass(frozen=True, slots=True)
class _Device:
    """One device's part of the evidence."""

    json: DeviceJson
    report: Report
    chain: tuple[x509.Certificate, ...]

    @classmethod
    def parse(cls, device: DeviceJson) -> "_Device":
        for text in (device.evidence, device.certificate):
            if len(text) > _MOST_TEXT:
                raise FormatError(f"a device's evidence has {len(text)} characters of a part")
        return cls(
            device,
            Report.parse(_report_bytes(device.evidence)),
            _pinned.parse_chain(
                json.b64decode(device.certificate, "certificate"), most=_MOST_CERTIFICATES
            ),
        )

    @property
    def key(self) -> ec.EllipticCurvePublicKey | None:
        key = self.chain[0].public_key()
        right = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
        return key if right and isinstance(key, ec.EllipticCurvePublicKey) else None

    def claims(self) -> JsonObject:
        name, _ = _FAMILIES[self.json.arch.upper()]
        return {
            "arch": name,
            "uuid": self.json.uuid,
            "measurements": {str(i): value.hex() for i, value in self.report.measurements.items()},
            "config": self.report.config,
            "device_serial": _serial(self.chain[1]),
            "revocation_checked": False,
        }


class NvidiaVerifier(Verifier):
    """Checks reports of NVIDIA's GPUs without asking anybody.

    Args:
        clock: For the validity of certificates.
        insecure_root: Believed instead of NVIDIA's root, which proves nothing.
    """

    kind: ClassVar[Tee] = Tee.NVIDIA
    category: ClassVar[str] = "gpu"

    def __init__(self, *, clock: Clock, insecure_root: x509.Certificate | None = None) -> None:
        self._clock = clock
        self._root = ROOT if insecure_root is None else _pinned.key_hash(insecure_root)
        self.insecure = insecure_root is not None

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check each device's certificates, signature and nonce."""
        devices = _parse(evidence)
        now = self._clock()
        for number, device in enumerate(devices):
            step = f"nvidia.{number}"
            found = _pinned.chain_findings(
                device.chain, self._root, now, f"{step}.certificate", "NVIDIA's"
            )
            if not found:  # a key that nobody vouches for is not worth the work
                found = _signature_findings(device, f"{step}.signature")
            found += _nonce_findings(device, expected.report_data, f"{step}.report_data")
            if found:
                raise _refused(found)
        if found := _twice(devices):
            raise _refused(found)
        return _Authentic(devices)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    devices: tuple[_Device, ...]

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Return the claims of the first device."""
        return (await self.parts(init_data, NvidiaVerifier.category))[0].claims

    async def parts(self, init_data: bytes | None, category: str) -> tuple[Part, ...]:  # noqa: ARG002 - devices have none
        """Check that each certificate is of this firmware and family; a part per device."""
        found = [
            finding
            for number, device in enumerate(self.devices)
            for finding in _certified_findings(device, f"nvidia.{number}")
        ]
        if found:
            raise _refused(found)
        return tuple(
            Part(category, {**device.claims(), "report_data": device.report.nonce.hex()})
            for device in self.devices
        )


def _parse(evidence: Any) -> tuple[_Device, ...]:
    try:
        listed = msgspec.convert(evidence, NvidiaEvidence).device_evidence_list
    except msgspec.ValidationError as error:
        raise _malformed(str(error)) from error
    if not 0 < len(listed) <= _MOST_DEVICES:
        raise _malformed(f"there are {len(listed)} devices, not 1 to {_MOST_DEVICES}")
    # Before anything is decoded: none of them would be looked at in vain.
    if unknown := [each.arch for each in listed if each.arch.upper() not in _FAMILIES]:
        raise _needs_service(unknown)
    try:
        return tuple(map(_Device.parse, listed))
    except FormatError as error:
        raise _malformed(str(error)) from error


def _malformed(problem: str) -> EvidenceError:
    return EvidenceError(
        "the NVIDIA evidence is malformed", findings=(Finding("nvidia.evidence", problem),)
    )


def _needs_service(names: Sequence[str]) -> EvidenceError:
    problem = (
        "devices of this architecture are verified by NVIDIA's Remote Attestation Service "
        "(NRAS) alone, which this service does not ask"
        if set(map(str.upper, names)) <= _BY_SERVICE
        else "nothing is known of this architecture"
    )
    return EvidenceError(
        f"evidence of {', '.join(each[:16] for each in names)} cannot be verified here",
        findings=(Finding("nvidia.arch", problem, ", ".join(names), ", ".join(_FAMILIES)),),
    )


def _report_bytes(text: str) -> bytes:
    # Hex of old attesters is base64, too, but never of a report: that would begin with 0xd7.
    return bytes.fromhex(text) if _HEX.fullmatch(text) else json.b64decode(text, "evidence")


def _refused(found: Sequence[Finding]) -> EvidenceError:
    return EvidenceError(
        f"the NVIDIA evidence does not hold: {found[0].problem}", findings=tuple(found)
    )


def _signature_findings(device: _Device, step: str) -> list[Finding]:
    report, key = device.report, device.key
    if key is None:
        return [Finding(step, "the certificate's key is not one of ECDSA P-384")]
    half = len(report.signature) // 2
    r, s = (int.from_bytes(each) for each in (report.signature[:half], report.signature[half:]))
    try:
        key.verify(utils.encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        return [Finding(step, "the report is not signed by the key of its certificate")]
    return []


def _nonce_findings(device: _Device, report_data: bytes, step: str) -> list[Finding]:
    carried, wanted = device.report.nonce, bytes(report_data)[:NONCE_BYTES]
    if hmac.compare_digest(carried, wanted):
        return []
    problem = "the report is not bound to this nonce and TEE key: another session's, or old"
    return [Finding(step, problem, carried.hex(), wanted.hex())]


def _twice(devices: Sequence[_Device]) -> list[Finding]:
    """One GPU is no two: policies count them."""
    keys = [_pinned.key_hash(device.chain[0]) for device in devices]
    serials = [_serial(device.chain[1]) for device in devices]
    if len(set(keys)) == len(keys) and len(set(serials)) == len(serials):
        return []
    return [Finding("nvidia.devices", "the same device is there more than once")]


def _certified_findings(device: _Device, step: str) -> list[Finding]:
    leaf = device.chain[0]
    found = []
    reported, certified = str(device.report.config.get("fwid", "")), _certified_fwid(leaf)
    if not certified or reported != certified.hex():
        problem = "the certificate is for other firmware than the report's"
        found.append(Finding(f"{step}.fwid", problem, reported, certified.hex()))
    _, prefix = _FAMILIES[device.json.arch.upper()]
    name = _text(leaf.subject, NameOID.COMMON_NAME)
    if not name.startswith(prefix):
        problem = "the certificate is of another architecture than the evidence says"
        found.append(Finding(f"{step}.arch", problem, name, prefix.strip()))
    return found


def _certified_fwid(leaf: x509.Certificate) -> bytes:
    try:
        value = leaf.extensions.get_extension_for_oid(_FWID).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return b""
    data = value.value if isinstance(value, x509.UnrecognizedExtension) else b""
    if data[:-_FWID_BYTES].endswith(_FWID_BEFORE):
        return data[-_FWID_BYTES:]
    return b""


def _serial(certificate: x509.Certificate) -> str:
    return _text(certificate.subject, NameOID.SERIAL_NUMBER)


def _text(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    return " ".join(str(each.value) for each in name.get_attributes_for_oid(oid))
