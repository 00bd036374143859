# SPDX-License-Identifier: Apache-2.0
"""Evidence of confidential VMs on Azure: what SNP's and TDX's have in common.

The paravisor, below the guest, has a TPM for it. The processor's report signs the hash of
the TPM's key, and that key signs a quote over the PCRs. Three versions are about.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from cocos._types import JsonObject, ReportData
from cocos.errors import Finding, FormatError
from cocos.evidence import tpm
from cocos.evidence.hcl import HclReport
from cocos.wire.kbs.protocol import Tee

INIT_DATA_PCR: Final = 8
_CHECKED: Final = 2
"""Version from which the paravisor's user data are the report data, too."""
_MOST: Final = 2**16
_PCR_BYTES: Final = 32
_SELECTION: Final = (tpm.Selection(tpm.ALG_SHA256, tpm.ALL_PCRS),)


class _Quote(msgspec.Struct, frozen=True):
    signature: Any
    message: Any
    pcrs: list[Any]


@dataclass(frozen=True, slots=True)
class AzureEvidence:
    """The parts that both kinds have.

    Attributes:
        version: 0, 1 or 2.
        report: Of the paravisor.
        quote: Of its TPM.
        signature: Over the quote, RSASSA with SHA-256.
        pcrs: Values of PCR 0 to 23.
        others: Every other member of the evidence, as it was sent.
    """

    version: int
    report: HclReport
    quote: tpm.Quote
    signature: bytes
    pcrs: tuple[bytes, ...]
    others: JsonObject

    @classmethod
    def parse(cls, tee: Tee, evidence: Any) -> "AzureEvidence":
        """Parse evidence.

        Args:
            tee: Whose.
            evidence: Decoded JSON.

        Raises:
            FormatError: another form.
        """
        if not isinstance(evidence, dict):
            raise FormatError("the evidence is no object")
        quote, report = members(tee, evidence)
        version = evidence.get("version", 0)
        if type(version) is not int or not 0 <= version <= _CHECKED:
            raise FormatError("the evidence is of an unknown version")
        try:
            shown = msgspec.convert(evidence.get(quote), _Quote)
        except msgspec.ValidationError as error:
            raise FormatError(str(error)) from error
        if len(shown.pcrs) != tpm.PCR_COUNT:
            raise FormatError(f"a quote has {tpm.PCR_COUNT} PCRs, not {len(shown.pcrs)}")
        pcrs = tuple(_hex(each, "a PCR") for each in shown.pcrs)
        if any(len(each) != _PCR_BYTES for each in pcrs):
            raise FormatError(f"a PCR has {_PCR_BYTES} bytes")
        return cls(
            version,
            HclReport.parse(blob(evidence.get(report), report)),
            tpm.Quote.parse(_hex(shown.message, "the quote")),
            _hex(shown.signature, "the quote's signature"),
            pcrs,
            {name: each for name, each in evidence.items() if name not in {quote, report}},
        )

    def bound(self, signed: bytes, expected: ReportData, step: str) -> list[Finding]:
        """Return what does not hold of: the processor's word on the key, the quote, the nonce.

        Args:
            signed: Report data of the processor's report, 64 bytes.
            expected: What the quote must be bound to.
            step: What findings' names begin with.
        """
        findings: list[Finding] = []
        wanted = hashlib.sha256(self.report.variable).digest().ljust(len(signed), b"\0")
        if not hmac.compare_digest(signed, wanted):
            problem = "the processor did not sign this data of the paravisor, nor the key in it"
            findings.append(Finding(f"{step}.hcl", problem, signed.hex(), wanted.hex()))
        scheme = padding.PKCS1v15()
        try:
            self.report.attestation_key.verify(
                self.signature, self.quote.signed, scheme, hashes.SHA256()
            )
        except InvalidSignature:
            problem = "the quote is not signed by the TPM that the paravisor made"
            findings.append(Finding(f"{step}.signature", problem))
        carried = self.quote.extra_data
        if not hmac.compare_digest(carried, expected):
            problem = "the quote is not bound to this nonce and TEE key: another session's, or old"
            check = f"{step}.report_data"
            findings.append(Finding(check, problem, carried.hex(), expected.hex()))
        asked = self.report.user_data[: len(expected)]
        if self.version >= _CHECKED and not hmac.compare_digest(asked, expected):
            problem = "the paravisor's user data are not bound to this nonce and TEE key"
            findings.append(Finding(f"{step}.user-data", problem, asked.hex(), expected.hex()))
        return findings

    def measured(self, init_data: bytes | None, step: str) -> list[Finding]:
        """Return what does not hold of: the selection of PCRs, their values, init data."""
        findings: list[Finding] = []
        if self.quote.selections != _SELECTION:
            # The list of values says nothing about which PCRs they are of.
            actual = " ".join(map(str, self.quote.selections)) or "none"
            problem = "the quote is not over all PCRs of the SHA-256 bank"
            findings.append(Finding(f"{step}.selection", problem, actual, str(_SELECTION[0])))
        digest = tpm.pcr_digest(self.pcrs)
        if digest != self.quote.pcr_digest:
            problem = "the PCRs listed are not those quoted"
            wanted = self.quote.pcr_digest.hex()
            findings.append(Finding(f"{step}.pcr-digest", problem, digest.hex(), wanted))
        if init_data is None:
            return findings
        found = self.pcrs[INIT_DATA_PCR]
        measured = tpm.extend(bytes(_PCR_BYTES), init_data)
        if len(init_data) != _PCR_BYTES:
            problem = "a TPM takes init data whose hash has 32 bytes"
            actual = f"{len(init_data)} bytes"
            findings.append(Finding("init_data.algorithm", problem, actual, "sha256"))
        elif not hmac.compare_digest(found, measured):
            problem = "the init data shown is not what was measured into PCR 8"
            findings.append(Finding(f"{step}.pcr08", problem, found.hex(), measured.hex()))
        return findings

    def claims(self) -> JsonObject:
        """Return the PCRs, and what the evidence is bound to."""
        return {
            "tpm": {f"pcr{index:02}": value.hex() for index, value in enumerate(self.pcrs)},
            "report_data": self.quote.extra_data.hex(),
            "init_data": self.pcrs[INIT_DATA_PCR].hex(),
        }


def blob(value: Any, what: str) -> bytes:
    """Return bytes of evidence: base64 for URLs, or a list of numbers.

    Raises:
        FormatError: neither, or too long.
    """
    if isinstance(value, list):
        return _listed(value, what)
    if not isinstance(value, str) or len(value) > _MOST:
        raise FormatError(f"{what} is no text of at most {_MOST} characters")
    try:
        padded = value + "=" * (-len(value) % 4)
        return base64.b64decode(padded.encode("ascii"), b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{what} is no base64") from error


def members(tee: Tee, evidence: Any) -> tuple[str, str]:
    """Return the names of the members with quote and report: SNP's first version had others."""
    if tee is Tee.AZ_SNP_VTPM and isinstance(evidence, dict) and "version" not in evidence:
        return "quote", "report"
    return "tpm_quote", "hcl_report"


def _hex(value: Any, what: str) -> bytes:
    if isinstance(value, list):
        return _listed(value, what)
    if not isinstance(value, str) or len(value) > _MOST:
        raise FormatError(f"{what} is no text of at most {_MOST} characters")
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise FormatError(f"{what} is no hex") from error


def _listed(value: Sequence[Any], what: str) -> bytes:
    if len(value) > _MOST or not all(type(each) is int for each in value):
        raise FormatError(f"{what} is no list of bytes")
    try:
        return bytes(value)
    except ValueError as error:
        raise FormatError(f"{what} is no list of bytes") from error
