# SPDX-License-Identifier: Apache-2.0
"""SNP evidence: a report that the processor signed.

Steps 1 to 3 of :mod:`cocos.verifiers.amd.report`, report data, and then, of evidence that is
genuine and fresh, init data and the other steps, all at once. Debugging and migration are
claims: the default policy refuses them.
"""

import asyncio
import hmac
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cocos._apart import apart
from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence import snp_json
from cocos.evidence.eventlog import parse_records
from cocos.evidence.snp import REPORT_DATA_BYTES, Report
from cocos.evidence.snp_binding import bind, mimics
from cocos.verifiers import _measured
from cocos.verifiers._base import Authentic, Expected
from cocos.verifiers._tpm_log import COMPUTATION_PCR
from cocos.verifiers.amd import report as reports
from cocos.verifiers.amd.endorsement import Endorsement, refused
from cocos.verifiers.amd.verifier import AmdVerifier
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

_LOG_HASH: Final = "sha384"


class SnpVerifier(AmdVerifier):
    """Checks reports of SEV-SNP."""

    kind: ClassVar[Tee] = Tee.SNP

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the key, the report's signature, and that it is bound to this session."""
        # Some milliseconds of RSA that release the interpreter: others need not wait.
        return await asyncio.to_thread(self._authenticate, evidence, expected)

    def _authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        try:
            shape = snp_json.parse(evidence)
            data, certificates = shape.report(), shape.certificates()
        except FormatError as error:
            raise _malformed(error) from error
        report = reports.parse(data)
        found = reports.authenticate(
            report, certificates, self._authorities, self._collateral, self._clock()
        )
        # Decoded and hashed, no more: that much of it is part of what makes it fresh.
        try:
            log = None if shape.aael is None else json.b64decode(shape.aael, "aael")
        except FormatError as error:
            raise _malformed(error) from error
        if findings := _freshness_findings(report, expected, log):
            raise refused(findings)
        return _Authentic(report, found, log)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    report: Report
    found: Endorsement
    log: bytes | None

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check init data, firmware, chip, privilege, and the log of events."""
        return await apart(len(self.log or b""), self._claims, init_data)

    def _claims(self, init_data: bytes | None) -> JsonObject:
        findings = [
            *reports.init_data_findings(self.report, init_data),
            *reports.findings(self.report, self.found),
        ]
        claims = reports.claims(self.report, self.found)
        if self.log is not None:
            try:
                events = parse_records(self.log)
                findings += _measured.shown(
                    _measured.changed(events, _LOG_HASH, "snp.event-log"), "snp.event-log"
                )
                claims |= _measured.runtime_claims(events, COMPUTATION_PCR)
                claims["computations_bound_by"] = "report_data"
            except FormatError as error:
                findings.append(Finding("snp.event-log", error.message))
        if findings:
            raise refused(findings)
        return claims


def _malformed(error: FormatError) -> EvidenceError:
    return EvidenceError(
        "the SNP evidence is malformed", findings=(Finding("snp.evidence", error.message),)
    )


def _freshness_findings(report: Report, expected: Expected, log: bytes | None) -> list[Finding]:
    bound = bytes(expected.report_data)
    wanted = bound.ljust(REPORT_DATA_BYTES, b"\0") if log is None else bind(bound, log)
    if log is None and mimics(report.report_data):
        problem = "the report carries a log of events, which the evidence leaves out"
    elif hmac.compare_digest(report.report_data, wanted):
        return []
    else:
        problem = "the report is not bound to this nonce and TEE key: another session's, or old"
    return [Finding("snp.report_data", problem, report.report_data.hex(), wanted.hex())]
