# SPDX-License-Identifier: Apache-2.0
"""What every verifier of evidence is."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError, Finding
from cocos.wire.kbs import Tee

MIN_REPORT_DATA_BYTES = 32


@dataclass(frozen=True, slots=True)
class Expected:
    """What evidence must be bound to.

    Attributes:
        report_data: Digest of the runtime data: nonce and TEE key. Never absent.
        init_data: Digest of the init data; None when the guest showed none.
    """

    report_data: ReportData
    init_data: bytes | None = None

    def __post_init__(self) -> None:
        # Evidence that need not carry a nonce could be anybody's, from any time.
        if len(self.report_data) < MIN_REPORT_DATA_BYTES:
            raise EvidenceError(
                "evidence is not appraised without a nonce to bind it to",
                findings=(
                    Finding("report_data.expected", "too short", str(len(self.report_data))),
                ),
            )


class Verifier(abc.ABC):
    """Checks that evidence is genuine and fresh, and says what it claims.

    Whether the claims are good is for the policy.

    Attributes:
        kind: The TEE.
        category: Names the policy, ``default_<category>``, and the submodule.
        insecure: It proves nothing; the token will say so.
    """

    kind: ClassVar[Tee]
    category: ClassVar[str] = "cpu"
    insecure: ClassVar[bool] = False

    @abc.abstractmethod
    async def verify(self, evidence: Any, expected: Expected) -> JsonObject:
        """Check evidence and return its claims.

        Args:
            evidence: Decoded JSON, of the TEE's form.
            expected: What it must be bound to.

        Returns:
            Claims; ``report_data`` and ``init_data`` among them as the evidence has them.

        Raises:
            EvidenceError: it does not hold; the findings have every check that failed.
        """
