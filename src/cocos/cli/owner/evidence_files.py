# SPDX-License-Identifier: Apache-2.0
"""Evidence in files: JSON as guests send it, or a raw report or quote with what is beside it."""

import base64
import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cocos.crypto.certificates import UNREADABLE
from cocos.errors import FormatError, UsageError
from cocos.evidence import snp_json
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

_HEX: Final = re.compile(rb"\s*(?:[0-9a-f]{2}\s*)+", re.IGNORECASE)
_PEM: Final = b"-----BEGIN "
_NAMED: Final = re.compile(r"(ARK|SEV-VCEK|SEV-VLEK(?!-)|SEV-)")
_KINDS: Final = {"ARK": "ARK", "SEV-VCEK": "VCEK", "SEV-VLEK": "VLEK", "SEV-": "ASK"}


def load(tee: Tee, data: bytes, certificates: Sequence[bytes], event_log: bytes | None) -> Any:
    """Return evidence as a verifier takes it.

    Args:
        tee: Whose.
        data: The file.
        certificates: Files with certificates beside it, DER or PEM.
        event_log: The firmware's log beside it.

    Raises:
        FormatError: a file is not what it should be.
        UsageError: something was given that evidence of this TEE has no place for.
    """
    evidence = _evidence(tee, data)
    if certificates:
        _add_certificates(tee, evidence, _chain(certificates))
    if event_log is not None:
        member = {Tee.TDX: "cc_eventlog", Tee.TPM: "event_log"}.get(tee)
        if member is None or not isinstance(evidence, dict):
            raise UsageError(f"evidence of {tee} has no place for an event log")
        evidence[member] = _b64(event_log)
    return evidence


def _evidence(tee: Tee, data: bytes) -> Any:
    if data.lstrip()[:1] in {b"{", b"["}:
        return json.decode_strict(data, Any, "the evidence")
    raw = bytes.fromhex(data.decode("ascii")) if _HEX.fullmatch(data) else data
    if tee is Tee.SNP:
        return snp_json.of_bytes(raw)
    if tee in {Tee.TDX, Tee.SGX}:
        return {"quote": _b64(raw)}
    if tee is Tee.NVIDIA:
        device = {"arch": "HOPPER", "uuid": "unknown", "evidence": _b64(raw), "certificate": ""}
        return {"device_evidence_list": [device]}
    raise FormatError(f"evidence of {tee} is JSON, and this is not")


def _add_certificates(tee: Tee, evidence: Any, chain: Sequence[x509.Certificate]) -> None:
    if not isinstance(evidence, dict):
        raise FormatError("the evidence is no object")
    if tee is Tee.SNP:
        evidence["cert_chain"] = [
            {"cert_type": _kind(one), "data": list(_der(one))} for one in chain
        ]
    elif tee is Tee.AZ_SNP_VTPM:
        (first, *_) = chain
        first_version = "version" not in evidence
        der = _der(first)
        evidence["vcek"] = (
            list(der) if first_version else base64.urlsafe_b64encode(der).decode("ascii")
        )
    elif tee is Tee.NVIDIA:
        pem = b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain)
        devices = evidence.get("device_evidence_list")
        for device in devices if isinstance(devices, list) else []:
            if isinstance(device, dict):
                device["certificate"] = _b64(pem)
    else:
        raise UsageError(f"evidence of {tee} has no place for certificates beside it")


def _chain(files: Sequence[bytes]) -> list[x509.Certificate]:
    try:
        return [
            one
            for data in files
            for one in (
                x509.load_pem_x509_certificates(data)
                if data.lstrip().startswith(_PEM)
                else [x509.load_der_x509_certificate(data)]
            )
        ]
    except UNREADABLE as error:
        raise FormatError(f"a certificate does not parse: {error}") from error


def _kind(certificate: x509.Certificate) -> str:
    """Return what AMD's names say of a certificate; VCEK where they say nothing."""
    try:
        found = _NAMED.search(certificate.subject.rfc4514_string())
    except UNREADABLE as error:
        raise FormatError(f"a certificate does not parse: {error}") from error
    return _KINDS[found[1]] if found else "VCEK"


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def fields(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return every field of something that was parsed, with dotted names, bytes in hex."""
    if isinstance(value, bytes):
        return [(name, value.hex())]
    if hasattr(value, "__dataclass_fields__"):
        members = {each: getattr(value, each) for each in value.__dataclass_fields__}
    elif isinstance(value, msgspec.Struct):
        members = {each: getattr(value, each) for each in value.__struct_fields__}
    elif isinstance(value, dict):
        members = value
    elif isinstance(value, list | tuple):
        if all(isinstance(each, int) for each in value):
            return [(name, " ".join(map(str, value)))]
        members = {str(number): each for number, each in enumerate(value)}
    else:
        return [(name, str(value))]
    return [
        row
        for member, each in members.items()
        for row in fields(each, f"{name}.{member}" if name else str(member))
    ]
