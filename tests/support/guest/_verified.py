# SPDX-License-Identifier: Apache-2.0
"""Both steps of a verifier, one after the other, as an attestation service takes them."""

from typing import Any

from cocos._types import JsonObject
from cocos.policy.vocabulary import CLAIMED, Shape
from cocos.verifiers import Expected, Verifier


async def verified(
    verifier: Verifier, evidence: Any, expected: Expected, init_data: bytes | None = None
) -> JsonObject:
    """Return the claims of evidence, or raise EvidenceError."""
    authentic = await verifier.authenticate(evidence, expected)
    claims = await authentic.claims(init_data)
    _check_names(CLAIMED.get(verifier.kind), claims)
    return claims


def _check_names(shape: Shape | None, value: Any) -> None:
    """Check that who sets a policy is told of every name that this evidence has."""
    if shape is None or shape.members is None:
        return
    if isinstance(value, list):
        for member in value:
            _check_names(shape.others, member)
        return
    for name, member in value.items():
        if name not in {"report_data", "init_data"}:  # beside them
            known = shape.members.get(name, shape.others)
            assert known is not None, name
            _check_names(known, member)
