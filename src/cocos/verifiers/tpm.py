# SPDX-License-Identifier: Apache-2.0
"""TPM evidence: a quote over all PCRs, and the logs that explain their values.

Beside what Trustee checks: the attestation key lives in a genuine TPM
(:mod:`cocos.verifiers._tpm_key`), the selection is all PCRs of the SHA-256 bank, all of
the report data is bound, and the event logs lead to the quoted values.
"""

import asyncio
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec
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
from cocos.verifiers._base import Authentic, Demand, Expected, Verifier
from cocos.verifiers._tpm_authorities import Authorities, Kind, parse_cas
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

__all__ = ["Authorities", "Kind", "TpmVerifier", "parse_cas"]

_PCR: Final = re.compile(r"[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
_TRUNCATED: Final = 32
_MOST_TEXT: Final = 4096  # of a base64 member; RSA-4096 and a quote of many banks have room
_SELECTION: Final = (tpm.Selection(tpm.ALG_SHA256, tpm.ALL_PCRS),)


@dataclass(frozen=True, slots=True)
class _Signed:
    """The parts of evidence that a stranger's work is bounded by: key, quote, signature."""

    json: TpmEvidence
    key: rsa.RSAPublicKey
    spki: bytes
    quote: tpm.Quote
    signature: bytes

    @classmethod
    def parse(cls, evidence: Any) -> "_Signed":
        try:
            shape = msgspec.convert(evidence, TpmEvidence)
            quote = shape.tpm_quote
            signature, message, spki = (
                _bounded(text, what)
                for text, what in (
                    (quote.signature, "signature"),
                    (quote.message, "message"),
                    (shape.ak_public, "ak_public"),
                )
            )
            return cls(
                json=shape,
                key=_tpm_key.load_spki(spki),
                spki=spki,
                quote=tpm.Quote.parse(message),
                signature=tpm.Signature.parse(signature).value,
            )
        except (msgspec.ValidationError, FormatError) as error:
            raise _malformed(error) from error


@dataclass(frozen=True, slots=True)
class _Logs:
    """What the quote vouches for.

    Attributes:
        firmware: Its log; empty without one.
        runtime: The attestation agent's log; None without one.
    """

    pcrs: tuple[bytes, ...]
    firmware: tuple[Event, ...]
    runtime: tuple[Event, ...] | None

    @classmethod
    def parse(cls, evidence: TpmEvidence) -> "_Logs":
        try:
            firmware = json.b64decode(evidence.event_log or "", "event_log")
            runtime = None if evidence.aael is None else json.b64decode(evidence.aael, "aael")
            return cls(
                pcrs=_pcrs(evidence.tpm_quote.pcrs),
                firmware=parse_log(firmware),
                runtime=None if runtime is None else parse_records(runtime),
            )
        except FormatError as error:
            raise _malformed(error) from error

    @property
    def events(self) -> tuple[Event, ...]:
        return (*self.firmware, *(self.runtime or ()))


class TpmVerifier(Verifier):
    """Checks quotes of TPM 2.0.

    Args:
        authorities: Who certifies endorsement keys; nobody: only registered keys count.
        clock: For the validity of certificates.
    """

    kind: ClassVar[Tee] = Tee.TPM
    takes_unbound: ClassVar[bool] = True

    def __init__(self, authorities: Authorities, *, clock: Clock) -> None:
        self._authorities = authorities
        self._clock = clock

    async def challenge(
        self, announced: Any, reference_values: Mapping[str, Any], secret: bytes
    ) -> Demand | None:
        """Challenge the TPM to show that it holds the attestation key.

        Raises:
            EvidenceError: the certificate is of nobody we trust, or the key could also
                live outside of a TPM.
        """
        return _tpm_key.demand(
            announced, reference_values, self._authorities, self._clock(), secret
        )

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the key, the quote's signature, and that it is bound to this session."""
        signed = _Signed.parse(evidence)
        trusted, findings = _tpm_key.trust(
            signed.json, signed.spki, expected, self._authorities, self._clock()
        )
        registered = trusted is not None and trusted["ak_trusted"] == _tpm_key.REGISTERED
        found = [
            *findings,
            *_signature_findings(signed),
            *_freshness_findings(signed.quote, expected, truncated=registered),
        ]
        if found or trusted is None:
            raise _refused(found)
        return _Authentic(signed, trusted)

    def explain(
        self, finding: Finding, claims: JsonObject, reference_values: Mapping[str, Any]
    ) -> Finding:
        """Name the first event in the log of a PCR that is not as it should be."""
        return _tpm_explain.explain(finding, claims.get("uefi", []), reference_values)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    signed: _Signed
    trusted: JsonObject

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check selection, PCRs, init data and event logs."""
        # Logs take their time, also those of a genuine guest: others must not wait for it.
        return await asyncio.to_thread(self._claims, init_data)

    def _claims(self, init_data: bytes | None) -> JsonObject:
        evidence, quote = self.signed.json, self.signed.quote
        logs = _Logs.parse(evidence)
        found = [
            *_pcr_findings(quote, logs.pcrs),
            *_init_data_findings(logs.pcrs, init_data),
            *_log_findings(logs),
        ]
        claims = _claims(evidence, logs, found)
        if found:
            raise _refused(found)
        report_data = quote.extra_data.hex()
        return {**claims, "report_data": report_data, **self.trusted}


def _malformed(error: Exception) -> EvidenceError:
    return EvidenceError(
        "the TPM evidence is malformed", findings=(Finding("tpm.evidence", str(error)),)
    )


def _refused(found: Sequence[Finding]) -> EvidenceError:
    return EvidenceError(
        f"the TPM evidence does not hold: {found[0].problem}", findings=tuple(found)
    )


def _bounded(text: str, what: str) -> bytes:
    if len(text) > _MOST_TEXT:
        raise FormatError(f"{what} has {len(text)} characters; {_MOST_TEXT} are allowed")
    return json.b64decode(text, what)


def _pcrs(listed: Sequence[str]) -> tuple[bytes, ...]:
    if len(listed) != tpm.PCR_COUNT or not all(map(_PCR.fullmatch, listed)):
        raise FormatError(f"a quote has {tpm.PCR_COUNT} PCRs, each 64 hex digits")
    return tuple(map(bytes.fromhex, listed))


def _signature_findings(signed: _Signed) -> list[Finding]:
    try:
        scheme = padding.PKCS1v15()
        signed.key.verify(signed.signature, signed.quote.signed, scheme, hashes.SHA256())
    except InvalidSignature:
        return [Finding("tpm.signature", "the quote is not signed by ak_public")]
    return []


def _freshness_findings(quote: tpm.Quote, expected: Expected, *, truncated: bool) -> list[Finding]:
    carried, wanted = quote.extra_data, bytes(expected.report_data)
    # Guest components of others have room for 32 bytes; only where an operator vouches.
    short = truncated and hmac.compare_digest(carried, wanted[:_TRUNCATED])
    if expected.binds(carried) or short:
        return []
    problem = "the quote is not bound to this nonce and TEE key: another session's, or old"
    return [Finding("tpm.report_data", problem, carried.hex(), wanted.hex())]


def _pcr_findings(quote: tpm.Quote, pcrs: tuple[bytes, ...]) -> list[Finding]:
    findings = []
    if quote.selections != _SELECTION:
        # The list of values says nothing about which PCRs they are of.
        actual = " ".join(map(str, quote.selections)) or "none"
        problem = "the quote is not over all PCRs of the SHA-256 bank"
        findings.append(Finding("tpm.selection", problem, actual, str(_SELECTION[0])))
    digest = tpm.pcr_digest(pcrs)
    if digest != quote.pcr_digest:
        problem = "the PCRs listed are not those quoted"
        actual, wanted = digest.hex(), quote.pcr_digest.hex()
        findings.append(Finding("tpm.pcr-digest", problem, actual, wanted))
    return findings


def _init_data_findings(pcrs: Sequence[bytes], init_data: bytes | None) -> list[Finding]:
    if init_data is None:
        return []
    found = pcrs[_tpm_log.INIT_DATA_PCR]
    start = bytes(len(found))
    measured = tpm.extend(start, init_data)
    if len(init_data) != len(start):
        problem = "a TPM takes init data whose hash has 32 bytes"
        return [Finding("init_data.algorithm", problem, f"{len(init_data)} bytes", "sha256")]
    if hmac.compare_digest(found, measured):
        return []
    problem = "the init data shown is not what was measured into PCR 8"
    return [Finding("tpm.pcr08", problem, found.hex(), measured.hex())]


def _log_findings(logs: _Logs) -> list[Finding]:
    if not logs.firmware and logs.runtime is None:
        return []  # as the public guest components send it: there is nothing to replay
    try:
        return _tpm_log.check_logs(logs.events, logs.pcrs, firmware=len(logs.firmware))
    except FormatError as error:
        return [Finding("tpm.event-log", str(error))]


def _claims(evidence: TpmEvidence, logs: _Logs, found: list[Finding]) -> JsonObject:
    """Return the claims; adds to ``found`` what keeps one from being made."""
    claims: JsonObject = {f"pcr{index:02}": value.hex() for index, value in enumerate(logs.pcrs)}
    claims["ak_public"] = evidence.ak_public
    claims["init_data"] = logs.pcrs[_tpm_log.INIT_DATA_PCR].hex()
    try:
        if logs.firmware:
            claims["uefi"] = _tpm_log.uefi_claims(logs.firmware)
            claims |= _tpm_log.cmdline_claims(logs.firmware, evidence.cmdline)
        if logs.runtime is not None:
            claims |= _tpm_log.runtime_claims(logs.events)
    except FormatError as error:
        found.append(Finding("tpm.event-log", str(error)))
    except EvidenceError as error:
        found += error.findings
    return claims
