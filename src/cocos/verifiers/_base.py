# SPDX-License-Identifier: Apache-2.0
"""What every verifier of evidence is."""

import abc
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cocos._types import JsonObject, ReportData
from cocos.errors import EvidenceError, Finding
from cocos.wire.kbs.protocol import Tee

MIN_REPORT_DATA_BYTES = 32


@dataclass(frozen=True, slots=True)
class Demand:
    """What a verifier asks of an attester beside the nonce.

    Attributes:
        params: For the attester; stands under the TEE's name in the challenge.
        state: For the verifier, when the evidence comes. Never a secret, which comes back with
            it by itself, and never a verdict, which has to be found anew.
    """

    params: JsonObject
    state: JsonObject


@dataclass(frozen=True, slots=True)
class Kept:
    """What a verifier knows of its own challenge; nobody else can have made it.

    Attributes:
        state: Of its :class:`Demand`.
        secret: Of this challenge.
    """

    state: JsonObject
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expected:
    """What evidence must be bound to.

    Attributes:
        report_data: Digest of the runtime data: nonce and TEE key. Never absent, but with
            ``insecure_unbound``, and then empty.
        kept: Of the verifier's own challenge in this session, if it made one.
        reference_values: What the operator registered; only keys of attesters are a
            verifier's business, everything else is the policy's.
        insecure_unbound: An operator takes evidence that is bound to nothing.
        chosen: Somebody looks at evidence of his own choice, and says what it is bound to:
            that may be short, and nothing is released for it.
    """

    report_data: ReportData
    kept: Kept | None = None
    reference_values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    insecure_unbound: bool = False
    chosen: bool = False

    @classmethod
    def of(
        cls, report_data: ReportData | None, kept: Kept | None, reference_values: Mapping[str, Any]
    ) -> "Expected":
        """Return what to expect of evidence; None for ``report_data``, insecurely: no binding."""
        if report_data is None:
            return cls(ReportData(b""), kept, reference_values, insecure_unbound=True)
        return cls(report_data, kept, reference_values)

    def binds(self, carried: bytes) -> bool:
        """Tell whether evidence that carries this is bound to what it must be bound to.

        Unbound evidence carries nothing, or zeros where the place has a fixed size: what was
        made for somebody's handshake does not pass for it.
        """
        if self.insecure_unbound:
            return not any(carried)
        return hmac.compare_digest(carried, self.report_data)

    def __post_init__(self) -> None:
        if self.insecure_unbound and not self.report_data:
            return
        # Evidence that need not carry a nonce could be anybody's, from any time.
        if len(self.report_data) < MIN_REPORT_DATA_BYTES and not self.chosen:
            raise EvidenceError(
                "evidence is not appraised without a nonce to bind it to",
                findings=(
                    Finding("report_data.expected", "too short", str(len(self.report_data))),
                ),
            )


@dataclass(frozen=True, slots=True)
class Part:
    """What evidence says of one device.

    Attributes:
        category: As of a :class:`Verifier`.
        claims: As of :meth:`Authentic.claims`.
    """

    category: str
    claims: JsonObject


class Authentic(abc.ABC):
    """Evidence whose key, signature and nonce hold: only this is worth any work."""

    @abc.abstractmethod
    async def claims(self, init_data: bytes | None) -> JsonObject:
        """Check everything else and return what the evidence claims.

        Args:
            init_data: Digest of the init data; None when the guest showed none.

        Returns:
            Claims; ``report_data`` and ``init_data`` among them as the evidence has them.

        Raises:
            EvidenceError: it does not hold; the findings have every check that failed.
        """

    async def parts(self, init_data: bytes | None, category: str) -> tuple[Part, ...]:
        """Check as :meth:`claims` does, and return what is claimed of each device.

        Args:
            init_data: As of :meth:`claims`.
            category: Of the verifier.
        """
        return (Part(category, await self.claims(init_data)),)


class Verifier(abc.ABC):
    """Checks that evidence is genuine and fresh, and says what it claims.

    Anybody may send evidence. Before its key and signature have been checked nothing is
    done with it whose cost depends on more than a few bounded fields. Whether the claims are
    good is for the policy.

    Attributes:
        kind: The TEE.
        category: Names the policy, ``default_<category>``, and the submodule.
        insecure: It proves nothing; the token will say so.
        takes_unbound: It tells unbound evidence from such as was made for somebody's nonce.
    """

    kind: ClassVar[Tee]
    category: ClassVar[str] = "cpu"
    insecure: bool = False
    takes_unbound: ClassVar[bool] = False

    async def challenge(
        self,
        announced: Any,  # noqa: ARG002
        reference_values: Mapping[str, Any],  # noqa: ARG002
        secret: bytes,  # noqa: ARG002
    ) -> Demand | None:
        """Return what to ask of an attester before it makes evidence; None for nothing.

        Args:
            announced: What it said under the TEE's name when it opened the session;
                None if nothing.
            reference_values: What the operator registered.
            secret: Of this challenge: 32 bytes for the attester alone, if it needs any.

        Raises:
            EvidenceError: what it announced can never become evidence that holds.
        """
        return None

    @abc.abstractmethod
    async def authenticate(self, evidence: Any, expected: Expected) -> Authentic:
        """Check the key that signed evidence, the signature, and the nonce.

        Args:
            evidence: Decoded JSON, of the TEE's form.
            expected: What it must be bound to.

        Raises:
            EvidenceError: malformed, or one of them does not hold; says nothing of the rest.
        """

    def explain(
        self,
        finding: Finding,
        claims: JsonObject,  # noqa: ARG002
        reference_values: Mapping[str, Any],  # noqa: ARG002
    ) -> Finding:
        """Return a policy's finding with what the claims tell about its cause.

        Args:
            finding: Of the policy.
            claims: Of this verifier.
            reference_values: What the operator registered.
        """
        return finding


def malformed(step: str, error: Exception) -> EvidenceError:
    """Return the refusal of evidence that does not parse."""
    return EvidenceError(
        f"the {step} evidence is malformed", findings=(Finding(f"{step}.evidence", str(error)),)
    )
