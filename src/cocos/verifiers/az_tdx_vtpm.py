# SPDX-License-Identifier: Apache-2.0
"""Evidence of TDX domains on Azure: Intel's quote vouches for the paravisor and its TPM."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence import hcl
from cocos.evidence.quote import TdReport
from cocos.verifiers import _azure
from cocos.verifiers._azure import AzureEvidence
from cocos.verifiers._base import Authentic, Expected, malformed
from cocos.verifiers.intel import quoted
from cocos.verifiers.intel.appraisal import Appraiser
from cocos.verifiers.intel.verifier import IntelVerifier
from cocos.verifiers.tdx import attribute_findings, domain_claims
from cocos.wire.kbs.protocol import Tee

_STEP: Final = "az-tdx-vtpm"


class AzureTdxVerifier(IntelVerifier):
    """Checks quotes of the TPM that a paravisor made in a TDX domain."""

    kind: ClassVar[Tee] = Tee.AZ_TDX_VTPM

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check Intel's quote up to the root, the TPM's key by it, its quote by that key."""
        try:
            shown = AzureEvidence.parse(Tee.AZ_TDX_VTPM, evidence)
            if shown.report.kind != hcl.TDX:
                raise FormatError("the HCL report is not of a TDX domain")  # noqa: TRY301
            data = _azure.blob(shown.others.get("td_quote"), "td_quote")
        except FormatError as error:
            raise malformed(_STEP, error) from error
        root = self._appraiser.root
        signed = quoted.Signed.verify(data, TdReport, root, self._clock(), _STEP)
        found = shown.bound(signed.body.report_data, expected.report_data, _STEP)
        if found:
            raise quoted.refused(_STEP, found)
        return _Authentic(signed, shown, self._appraiser)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    signed: quoted.Signed[TdReport]
    shown: AzureEvidence
    appraiser: Appraiser

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check platform, attributes, service domains, PCRs and init data."""
        return await asyncio.to_thread(self._claims, init_data)

    def _claims(self, init_data: bytes | None) -> JsonObject:
        signed = self.signed
        found = [
            *attribute_findings(signed.body, _STEP),
            *_register_findings(signed.body),
            *self.shown.measured(init_data, _STEP),
        ]
        claims: JsonObject = {}
        hint: str | None = None
        try:
            claims = self.appraiser.claims(signed.quote, signed.pck, signed.now, _STEP)
        except EvidenceError as error:
            found += error.findings
            hint = error.hint
        if found:
            raise quoted.refused(_STEP, found, hint)
        return {**claims, **domain_claims(signed), **self.shown.claims()}


def _register_findings(body: TdReport) -> list[Finding]:
    """Return the runtime registers that something was measured into.

    Below Azure's guests is a paravisor, which leaves them zero. Firmware of a plain domain
    measures into them whatever it starts, and that can make up a TPM with any PCRs: were it
    believed, the reference value of a plain domain's firmware would stand for a paravisor.
    """
    problem = "firmware measured into this register: this is a plain domain, without a paravisor"
    return [
        Finding(f"{_STEP}.rtmr_{number}", problem, value.hex(), bytes(len(value)).hex())
        for number, value in enumerate(body.rtmrs)
        if any(value)
    ]
