# SPDX-License-Identifier: Apache-2.0
"""Both steps of a verifier, one after the other, as an attestation service takes them."""

from typing import Any

from cocos._types import JsonObject
from cocos.verifiers import Expected, Verifier


async def verified(
    verifier: Verifier, evidence: Any, expected: Expected, init_data: bytes | None = None
) -> JsonObject:
    """Return the claims of evidence, or raise EvidenceError."""
    authentic = await verifier.authenticate(evidence, expected)
    return await authentic.claims(init_data)
