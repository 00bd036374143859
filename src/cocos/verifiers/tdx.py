# SPDX-License-Identifier: Apache-2.0
"""TDX evidence: a quote over a trust domain, and the log that explains its registers.

Beside what Trustee checks: documents of Intel's past their time are refused, so are
domains that a service domain could move elsewhere, logs whose text is not what was
measured, and anything but runtime events in RTMR 3.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import msgspec

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.evidence.eventlog import parse_log
from cocos.evidence.quote import TdReport
from cocos.verifiers import _td_log
from cocos.verifiers._base import Authentic, Expected, malformed
from cocos.verifiers.intel import quoted
from cocos.verifiers.intel.appraisal import Appraiser
from cocos.verifiers.intel.verifier import IntelVerifier
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee

_STEP: Final = "tdx"
_MIGRATABLE: Final = 1 << 29
# Bit of TDX.ATTRIBUTES → its claim (Intel TDX Module ABI, §3.4.1).
_BITS: Final = {
    "debug": 1 << 0,
    "septve_disable": 1 << 28,
    "protection_keys": 1 << 30,
    "key_locker": 1 << 31,
    "perfmon": 1 << 63,
}
_KNOWN: Final = sum(_BITS.values()) | _MIGRATABLE


class TdxEvidence(msgspec.Struct, frozen=True):
    """Evidence of kind ``tdx``; standard base64.

    Attributes:
        quote: The quote.
        cc_eventlog: The firmware's log with the attestation agent's runtime events at its
            end.
    """

    quote: str
    cc_eventlog: str | None = None


class TdxVerifier(IntelVerifier):
    """Checks quotes of TDX domains."""

    kind: ClassVar[Tee] = Tee.TDX
    takes_unbound: ClassVar[bool] = True

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the quote's signatures up to the root, and that it is bound to this session."""
        try:
            shape = msgspec.convert(evidence, TdxEvidence)
        except msgspec.ValidationError as error:
            raise malformed(_STEP, error) from error
        data = quoted.decode(shape.quote, _STEP)
        root = self._appraiser.root
        signed = quoted.Signed.verify(data, TdReport, root, self._clock(), _STEP)
        found = quoted.bound(signed.body.report_data, expected.report_data, _STEP)
        if found:
            raise quoted.refused(_STEP, found)
        return _Authentic(signed, shape.cc_eventlog, self._appraiser)


@dataclass(frozen=True, slots=True)
class _Authentic(Authentic):
    signed: quoted.Signed[TdReport]
    log: str | None
    appraiser: Appraiser

    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check platform, attributes, service domains, init data and event log."""
        return await asyncio.to_thread(self._claims, init_data)

    def _claims(self, init_data: bytes | None) -> JsonObject:
        signed, body = self.signed, self.signed.body
        found = [
            *attribute_findings(body, _STEP),
            *quoted.launched_with(body.mr_config_id, init_data, "MRCONFIGID", _STEP),
        ]
        claims: JsonObject = {}
        hint: str | None = None
        for part in (self._platform, self._measured):
            try:
                claims |= part()
            except EvidenceError as error:
                found += error.findings
                hint = hint or error.hint
        if found:
            raise quoted.refused(_STEP, found, hint)
        return {
            **claims,
            **domain_claims(signed),
            "report_data": body.report_data.hex(),
            "init_data": body.mr_config_id.hex(),
        }

    def _platform(self) -> JsonObject:
        return self.appraiser.claims(self.signed.quote, self.signed.pck, self.signed.now, _STEP)

    def _measured(self) -> JsonObject:
        if not self.log:
            return {}  # there is nothing to replay; nobody knows then what was computed
        body = self.signed.body
        try:
            events = parse_log(json.b64decode(self.log, "cc_eventlog"))
            findings = _td_log.check_log(events, body.rtmrs)
            claims = _td_log.claims(events) if not findings else {}
        except FormatError as error:
            findings = [Finding(f"{_STEP}.event-log", str(error))]
        if findings:
            raise quoted.refused(_STEP, findings)
        return claims


def domain_claims(signed: quoted.Signed[TdReport]) -> JsonObject:
    """Return the quote and its attributes, under the names of Trustee."""
    body = signed.body
    attributes = int.from_bytes(body.td_attributes, "little")
    return {
        "quote": signed.quote.claims(),
        "td_attributes": {name: bool(attributes & bit) for name, bit in _BITS.items()},
    }


def attribute_findings(body: TdReport, step: str) -> list[Finding]:
    """Return what no policy is asked about: who else reaches into the domain."""
    attributes = int.from_bytes(body.td_attributes, "little")
    found = []
    if attributes & _MIGRATABLE or any(body.service_td):
        problem = "a service domain, such as a migration agent, can reach into this domain"
        actual = f"attributes {attributes:#x}, service domains {body.service_td.hex() or 'none'}"
        found.append(Finding(f"{step}.service-td", problem, actual, "none"))
    if attributes & ~_KNOWN:
        problem = "the domain has attributes that nobody here knows"
        actual = f"{attributes & ~_KNOWN:#x}"
        found.append(Finding(f"{step}.attributes", problem, actual, "0"))
    return found
