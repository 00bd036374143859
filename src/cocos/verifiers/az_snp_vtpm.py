# SPDX-License-Identifier: Apache-2.0
"""Evidence of SNP VMs on Azure: AMD's report vouches for the paravisor and its TPM."""

import asyncio
import base64
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.evidence import hcl
from cocos.evidence.snp import REPORT_BYTES, Report
from cocos.evidence.snp_json import MAX_CERTIFICATE_BYTES, as_der
from cocos.verifiers import _azure
from cocos.verifiers._azure import AzureEvidence
from cocos.verifiers._base import Authentic, Expected, malformed
from cocos.verifiers.amd import report as reports
from cocos.verifiers.amd.endorsement import Endorsement, refused
from cocos.verifiers.amd.verifier import AmdVerifier
from cocos.wire.kbs.protocol import Tee

_STEP: Final = "az-snp-vtpm"


class AzureSnpVerifier(AmdVerifier):
    """Checks quotes of the TPM that a paravisor made in an SNP VM."""

    kind: ClassVar[Tee] = Tee.AZ_SNP_VTPM

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check AMD's report up to the root, the TPM's key by it, its quote by that key."""
        return await asyncio.to_thread(self._authenticate, evidence, expected)

    def _authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        try:
            first = isinstance(evidence, dict) and "version" not in evidence
            shown = AzureEvidence.parse(Tee.AZ_SNP_VTPM, evidence)
            if shown.report.kind != hcl.SNP:
                raise FormatError("the HCL report is not of an SNP VM")  # noqa: TRY301
            vcek = _vcek(shown.others.get("vcek"), pem=first)
        except FormatError as error:
            raise malformed(_STEP, error) from error
        report = reports.parse(shown.report.hardware[:REPORT_BYTES])
        provided = {} if vcek is None else {"VCEK": vcek}
        found = reports.authenticate(
            report, provided, self._authorities, self._collateral, self._clock()
        )
        if findings := shown.bound(report.report_data, expected.report_data, _STEP):
            raise refused(findings)
        return _Authentic(report, found, shown)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    report: Report
    found: Endorsement
    shown: AzureEvidence

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check firmware, chip, privilege, PCRs and init data."""
        findings = [
            *reports.findings(self.report, self.found),
            *self.shown.measured(init_data, _STEP),
        ]
        if findings:
            raise refused(findings)
        claims = {
            name: _as_trustee_writes(value)
            for name, value in reports.claims(self.report, self.found).items()
        }
        claims["measurement"] = base64.b64encode(self.report.measurement).decode("ascii")
        return {**claims, **self.shown.claims()}


def _as_trustee_writes(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _vcek(value: Any, *, pem: bool) -> bytes | None:
    """Return the chip's certificate, PEM text in the first version; None if none came."""
    if value is None:
        return None
    if pem and isinstance(value, str):
        data = value.encode("utf-8", "replace")
    else:
        data = _azure.blob(value, "vcek")
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise FormatError(f"vcek has {len(data)} bytes; {MAX_CERTIFICATE_BYTES} are allowed")
    return as_der(data)
