# SPDX-License-Identifier: Apache-2.0
"""What an attestation service is asked to appraise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cocos._types import JsonObject, ReportData
from cocos.attestation_service.policies import POLICY_ID
from cocos.wire.kbs import protocol as kbs
from cocos.wire.kbs.protocol import InitData, Tee


@dataclass(frozen=True, slots=True)
class Attester:
    """One attester's evidence, and what it must be bound to.

    Attributes:
        tee: Its kind.
        evidence: Decoded JSON.
        report_data: What the evidence must carry; None if, insecurely, nothing: it may be
            a recorded one.
        runtime_data: What that is the digest of; None if it is no digest.
        init_data: What the host passed in, in clear.
        init_data_digest: Its digest, if it is not shown.
        state: As it was given out with the challenge of this session, if there was one.
    """

    tee: Tee
    evidence: Any
    report_data: ReportData | None
    runtime_data: JsonObject | None = None
    init_data: InitData | None = None
    init_data_digest: bytes | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class AppraisalRequest:
    """What is to be appraised.

    Attributes:
        attesters: The primary one first; at least one.
        policy_id: By which policies, without their class.
    """

    attesters: tuple[Attester, ...]
    policy_id: str = POLICY_ID

    @classmethod
    def of_handshake(
        cls,
        tee: Tee,
        evidence: Any,
        additional: Mapping[Tee, Any],
        runtime_data: JsonObject,
        init_data: InitData | None = None,
        *,
        state: str | None = None,
    ) -> "AppraisalRequest":
        """Return the request for an attestation to a key broker.

        Args:
            tee: Primary attester.
            evidence: Its evidence.
            additional: Evidence of devices, which have no place for init data.
            runtime_data: What the primary evidence is bound to: ``nonce``, ``tee-pubkey``
                and ``additional-evidence``. Devices are bound to the first two.
            init_data: What the host passed in, in clear.
            state: As it was given out with the challenge of this session, if there was one.
        """
        shared = kbs.without_devices(runtime_data)
        bound = kbs.report_data(runtime_data)
        primary = Attester(tee, evidence, bound, runtime_data, init_data, state=state)
        devices = (
            Attester(kind, each, kbs.report_data(shared), shared)
            for kind, each in additional.items()
        )
        return cls((primary, *devices))
