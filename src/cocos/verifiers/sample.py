# SPDX-License-Identifier: Apache-2.0
"""Sample evidence: the form of evidence without any proof (evidence.md §2).

Anybody can make it. What is checked is freshness alone, so that trials exercise the whole
protocol.
"""

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from cocos._types import JsonObject
from cocos.errors import EvidenceError, Finding, FormatError
from cocos.verifiers._base import Authentic, Expected, Verifier
from cocos.wire import json
from cocos.wire.kbs.protocol import Tee


class SampleEvidence(msgspec.Struct, frozen=True):
    """Evidence of a sample attester; ``report_data`` is standard base64."""

    svn: str
    report_data: str = ""


class InsecureSampleVerifier(Verifier):
    """Believes whoever says to be a sample TEE."""

    kind: ClassVar[Tee] = Tee.SAMPLE
    takes_unbound: ClassVar[bool] = True
    insecure: bool = True

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check that the evidence carries the expected report data, all of it."""
        return _Sample(_check(evidence, expected, self.kind))


class InsecureSampleDeviceVerifier(Verifier):
    """Believes whoever says to be a sample GPU."""

    kind: ClassVar[Tee] = Tee.SAMPLE_DEVICE
    category: ClassVar[str] = "gpu"
    takes_unbound: ClassVar[bool] = True
    insecure: bool = True

    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check that the evidence carries the expected report data, all of it."""
        return _SampleDevice(_check(evidence, expected, self.kind))


@dataclass(frozen=True, slots=True)
class _SampleDevice(Authentic):
    sample: SampleEvidence

    async def claims(self, init_data: bytes | None) -> JsonObject:  # noqa: ARG002 - devices have none
        return {"svn": self.sample.svn, "report_data": self.sample.report_data}


@dataclass(frozen=True, slots=True)
class _Sample(Authentic):
    sample: SampleEvidence

    async def claims(self, init_data: bytes | None) -> JsonObject:
        claims: JsonObject = {
            "svn": self.sample.svn,
            "report_data": self.sample.report_data,
            "launch_digest": "abcde",
            "platform_version": {"major": 1, "minor": 4},
            "debug": False,
        }
        if init_data is not None:
            # Nothing binds init data to a sample: the claim is the guest's word.
            claims["init_data"] = base64.b64encode(init_data).decode("ascii")
        return claims


def _check(evidence: Any, expected: Expected, kind: Tee) -> SampleEvidence:
    try:
        sample = msgspec.convert(evidence, SampleEvidence)
        carried = json.b64decode(sample.report_data, "report_data of the evidence")
    except (msgspec.ValidationError, FormatError) as error:
        raise EvidenceError(
            f"the {kind} evidence is malformed",
            findings=(Finding(f"{kind}.evidence", str(error)),),
        ) from error
    if not expected.binds(carried):
        raise EvidenceError(
            f"the {kind} evidence is not bound to this nonce and TEE key",
            findings=(
                Finding(
                    f"{kind}.report_data",
                    "evidence carries other report data: another nonce, another key, or none",
                    actual=carried.hex(),
                    expected=expected.report_data.hex(),
                ),
            ),
        )
    return sample
