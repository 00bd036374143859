# SPDX-License-Identifier: Apache-2.0
"""Trustee's restful-as: what ``POST /attestation`` carries. The answer is a bare JWT."""

import msgspec

from cocos._types import JsonObject
from cocos.wire.kbs.protocol import InitData

ATTESTATION_ROUTE = "attestation"
CHALLENGE_ROUTE = "challenge"


class Bound(msgspec.Struct, frozen=True, omit_defaults=True):
    """What evidence must be bound to; one of the two."""

    raw: str | None = None
    """The report data itself: base64url."""
    structured: JsonObject | None = None
    """An object whose digest is the report data."""


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the host passed in, or its digest; one of them. ``init_data_json`` is ours."""

    init_data_digest: str | None = None
    init_data_toml: str | None = None
    init_data_json: str | None = None

    @classmethod
    def of(cls, init_data: InitData) -> "Shown":
        """Return init data in clear."""
        if init_data.format == "toml":
            return cls(init_data_toml=init_data.body)
        return cls(init_data_json=init_data.body)


class VerificationRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attester's evidence."""

    tee: str
    evidence: str
    """Base64url of JSON text."""
    runtime_data: Bound | None = None
    init_data: Shown | None = None
    runtime_data_hash_algorithm: str | None = None


class AttestationBody(msgspec.Struct, frozen=True):
    """The evidence of a machine, the primary attester's first."""

    verification_requests: list[VerificationRequest]
    policy_ids: list[str] = []


class ChallengeBody(msgspec.Struct, frozen=True):
    """A question for a nonce."""

    tee: str
