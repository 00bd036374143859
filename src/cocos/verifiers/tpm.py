# SPDX-License-Identifier: Apache-2.0
"""TPM evidence: a quote over all PCRs, and the logs that explain their values.

Beside what Trustee checks: the attestation key lives in a genuine TPM
(:mod:`cocos.verifiers._tpm_key`), the selection is all PCRs of the SHA-256 bank, all of
the report data is bound, and the event logs lead to the quoted values.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from cocos._clock import Clock
from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence import tpm
from cocos.evidence.eventlog import Event, parse_log, parse_records
from cocos.evidence.tpm_json import TpmEvidence
from cocos.verifiers import _tpm_explain, _tpm_key, _tpm_log
from cocos.verifiers._base import Demand, Expected, Verifier
from cocos.verifiers._tpm_key import parse_ek_cas
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

__all__ = ["TpmVerifier", "parse_ek_cas"]

_PCR: Final = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
_TRUNCATED: Final = 32
_SELECTION: Final = (tpm.Selection(tpm.ALG_SHA256, tpm.ALL_PCRS),)


@dataclass(frozen=True, slots=True)
class _Parsed:
    """Evidence after every part of it has parsed.

    Attributes:
        firmware: Its log; empty without one.
        runtime: The attestation agent's log; None without one.
    """

    json: TpmEvidence
    key: rsa.RSAPublicKey
    spki: bytes
    quote: tpm.Quote
    signature: bytes
    pcrs: tuple[bytes, ...]
    firmware: tuple[Event, ...]
    runtime: tuple[Event, ...] | None


class TpmVerifier(Verifier):
    """Checks quotes of TPM 2.0.

    Args:
        ek_cas: Who certifies endorsement keys; none: only registered keys count.
        clock: For the validity of certificates.
    """

    kind: ClassVar[Tee] = Tee.TPM

    def __init__(self, ek_cas: Sequence[x509.Certificate], *, clock: Clock) -> None:
        self._ek_cas = tuple(ek_cas)
        self._clock = clock

    async def challenge(
        self, announced: Any, reference_values: Mapping[str, Any], secret: bytes
    ) -> Demand | None:
        """Challenge the TPM to show that it holds the attestation key.

        Raises:
            EvidenceError: the certificate is of nobody we trust, or the key could also
                live outside of a TPM.
        """
        return _tpm_key.demand(announced, reference_values, self._ek_cas, self._clock(), secret)

    async def verify(self, evidence: Any, expected: Expected) -> JsonObject:
        """Check signature, key, selection, PCRs, nonce, init data and event logs."""
        parsed = _parse(evidence)
        trusted, findings = _tpm_key.trust(
            parsed.json, parsed.spki, expected, self._ek_cas, self._clock()
        )
        found = [
            *findings,
            *_quote_findings(parsed),
            *_bound_findings(parsed, expected, truncated=trusted == _tpm_key.REGISTERED),
            *_log_findings(parsed),
        ]
        claims = _claims(parsed, found)
        if found or trusted is None:
            raise EvidenceError(
                f"the TPM evidence does not hold: {found[0].problem}", findings=tuple(found)
            )
        return {**claims, "ak_trusted": trusted}

    def explain(
        self, finding: Finding, claims: JsonObject, reference_values: Mapping[str, Any]
    ) -> Finding:
        """Name the first event in the log of a PCR that is not as it should be."""
        return _tpm_explain.explain(finding, claims.get("uefi", []), reference_values)


def _parse(evidence: Any) -> _Parsed:
    try:
        shape = msgspec.convert(evidence, TpmEvidence)
        quote = shape.tpm_quote
        signature = tpm.Signature.parse(json.b64decode(quote.signature, "signature"))
        spki = json.b64decode(shape.ak_public, "ak_public")
        firmware = json.b64decode(shape.event_log or "", "event_log")
        runtime = None if shape.aael is None else json.b64decode(shape.aael, "aael")
        return _Parsed(
            json=shape,
            key=_tpm_key.load_spki(spki),
            spki=spki,
            quote=tpm.Quote.parse(json.b64decode(quote.message, "message")),
            signature=signature.value,
            pcrs=_pcrs(quote.pcrs),
            firmware=parse_log(firmware),
            runtime=None if runtime is None else parse_records(runtime),
        )
    except (msgspec.ValidationError, FormatError) as error:
        raise EvidenceError(
            "the TPM evidence is malformed", findings=(Finding("tpm.evidence", str(error)),)
        ) from error


def _pcrs(listed: Sequence[str]) -> tuple[bytes, ...]:
    if len(listed) != tpm.PCR_COUNT or not all(map(_PCR.fullmatch, listed)):
        raise FormatError(f"a quote has {tpm.PCR_COUNT} PCRs, each 64 hex digits")
    return tuple(map(bytes.fromhex, listed))


def _quote_findings(parsed: _Parsed) -> list[Finding]:
    findings = []
    try:
        scheme = padding.PKCS1v15()
        parsed.key.verify(parsed.signature, parsed.quote.signed, scheme, hashes.SHA256())
    except InvalidSignature:
        findings.append(Finding("tpm.signature", "the quote is not signed by ak_public"))
    if parsed.quote.selections != _SELECTION:
        # The list of values says nothing about which PCRs they are of.
        actual = " ".join(map(str, parsed.quote.selections)) or "none"
        problem = "the quote is not over all PCRs of the SHA-256 bank"
        findings.append(Finding("tpm.selection", problem, actual, str(_SELECTION[0])))
    digest = tpm.pcr_digest(parsed.pcrs)
    if digest != parsed.quote.pcr_digest:
        problem = "the PCRs listed are not those quoted"
        actual, wanted = digest.hex(), parsed.quote.pcr_digest.hex()
        findings.append(Finding("tpm.pcr-digest", problem, actual, wanted))
    return findings


def _bound_findings(parsed: _Parsed, expected: Expected, *, truncated: bool) -> list[Finding]:
    """Check what the evidence is bound to: report data, init data."""
    findings = []
    carried, wanted = parsed.quote.extra_data, bytes(expected.report_data)
    # Guest components of others have room for 32 bytes; only where an operator vouches.
    forms = (wanted, wanted[:_TRUNCATED]) if truncated else (wanted,)
    if not any(hmac.compare_digest(carried, form) for form in forms):
        problem = "the quote is not bound to this nonce and TEE key: another session's, or old"
        findings.append(Finding("tpm.report_data", problem, carried.hex(), wanted.hex()))
    if expected.init_data is not None:
        found = parsed.pcrs[_tpm_log.INIT_DATA_PCR]
        start = bytes(len(found))
        measured = tpm.extend(start, expected.init_data)
        if len(expected.init_data) != len(start):
            problem = "a TPM takes init data whose hash has 32 bytes"
            length = f"{len(expected.init_data)} bytes"
            findings.append(Finding("init_data.algorithm", problem, length, "sha256"))
        elif not hmac.compare_digest(found, measured):
            problem = "the init data shown is not what was measured into PCR 8"
            findings.append(Finding("tpm.pcr08", problem, found.hex(), measured.hex()))
    return findings


def _log_findings(parsed: _Parsed) -> list[Finding]:
    if not parsed.firmware and parsed.runtime is None:
        return []  # as the public guest components send it: there is nothing to replay
    events = (*parsed.firmware, *(parsed.runtime or ()))
    try:
        return _tpm_log.check_logs(events, parsed.pcrs, firmware=len(parsed.firmware))
    except FormatError as error:
        return [Finding("tpm.event-log", str(error))]


def _claims(parsed: _Parsed, found: list[Finding]) -> JsonObject:
    """Return the claims; adds to ``found`` what keeps one from being made."""
    claims: JsonObject = {f"pcr{index:02}": value.hex() for index, value in enumerate(parsed.pcrs)}
    claims["ak_public"] = parsed.json.ak_public
    claims["report_data"] = parsed.quote.extra_data.hex()
    claims["init_data"] = parsed.pcrs[_tpm_log.INIT_DATA_PCR].hex()
    try:
        if parsed.firmware:
            claims["uefi"] = _tpm_log.uefi_claims(parsed.firmware)
            claims |= _tpm_log.cmdline_claims(parsed.firmware, parsed.json.cmdline)
        if parsed.runtime is not None:
            claims |= _tpm_log.runtime_claims((*parsed.firmware, *parsed.runtime))
    except FormatError as error:
        found.append(Finding("tpm.event-log", str(error)))
    except EvidenceError as error:
        found += error.findings
    return claims
