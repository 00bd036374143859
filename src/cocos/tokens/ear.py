# SPDX-License-Identifier: Apache-2.0
"""Attestation results: an EAT Attestation Result (EAR) as a JWT signed with ES256.

The form is Trustee's (kbs.md §7), so that its relying parties and policies read it.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cocos._types import JsonObject, UnverifiedToken
from cocos.errors import FormatError, TooLargeError
from cocos.policy.appraisal import (
    APPRAISED_BY,
    EVIDENCE,
    FINDINGS,
    INSECURE,
    STATUS,
    VECTOR,
    Verdict,
)
from cocos.tokens.signer import Signer

MAX_BYTES: Final = 384 * 2**10
"""Of a token: a guest shows it in a header, and our HTTP server reads heads of 400 KiB."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """What a token says about who made it.

    Attributes:
        name: Claim ``iss``.
        developer: Of the verifier.
        build: Of the verifier.
        profile: Claim ``eat_profile``.
        lifetime: From ``iat`` to ``exp``.
    """

    name: str
    developer: str
    build: str
    profile: str
    lifetime: dt.timedelta


@dataclass(frozen=True, slots=True)
class Submodule:
    """One appraised part of an attester.

    Attributes:
        verdict: Of the policy.
        policy_id: The policy that was asked for, without its class.
        evidence: Annotated evidence, as the policy saw it.
        insecure: Names of what the operator allowed although it proves nothing.
    """

    verdict: Verdict
    policy_id: str
    evidence: JsonObject
    insecure: tuple[str, ...] = ()


def issue(
    submodules: Mapping[str, Submodule], *, signer: Signer, issuer: Issuer, now: dt.datetime
) -> UnverifiedToken:
    """Sign a token over appraised submodules.

    Args:
        submodules: ``cpu0``, ``gpu0``, … → appraisal; at least one.
        signer: Signs, and is shown in the header.
        issuer: Who says so, and for how long.
        now: Issue time.

    Raises:
        FormatError: no submodule, or evidence that cannot be written as JSON.
        TooLargeError: a token that no guest could show.
    """
    if not submodules:
        raise FormatError("a token about nothing is not issued")
    issued = int(now.timestamp())
    claims: JsonObject = {
        "eat_profile": issuer.profile,
        "iat": issued,
        "ear.verifier-id": {"developer": issuer.developer, "build": issuer.build},
        "submods": {name: _members(submodule) for name, submodule in submodules.items()},
        "exp": issued + int(issuer.lifetime.total_seconds()),
        "iss": issuer.name,
    }
    token = signer.key.sign(signer.header, claims)
    if len(token) > MAX_BYTES:
        raise TooLargeError(
            f"the claims make a token of {len(token)} bytes, more than {MAX_BYTES}",
            hint="the operator can leave the raw evidence of devices out: verbose_token = false",
        )
    return UnverifiedToken(token)


def _members(submodule: Submodule) -> JsonObject:
    verdict = submodule.verdict
    members: JsonObject = {
        STATUS: verdict.status.value,
        VECTOR: verdict.vector,
        APPRAISED_BY: submodule.policy_id,
        EVIDENCE: _sorted(submodule.evidence),
        **verdict.extensions,
    }
    if verdict.findings:
        members[FINDINGS] = msgspec.to_builtins(verdict.findings)
    if submodule.insecure:
        members[INSECURE] = list(submodule.insecure)
    return members


def _sorted(value: Any) -> Any:
    """Order members by name at every level, as Trustee writes them."""
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(member) for member in value]
    return value
