# SPDX-License-Identifier: Apache-2.0
"""Tokens in the form of the EAR draft to come (draft-ietf-rats-ear-04), read as today's.

There the verdict is ``ear_status``, what evidence says is under ``ear_attester_claims``, and
what the attestation service adds under ``ear_verifier_claims``; where exactly the runtime data
with the TEE's key ends is not settled among its implementations, so each place is known.
Policies and programs see the members of today's form beside those that came, so that both
look at the same.
"""

from collections.abc import Mapping
from typing import Any, Final

from cocos._types import JsonObject
from cocos.errors import FormatError
from cocos.policy.appraisal import APPRAISED_BY, EVIDENCE, STATUS, VECTOR

_ATTESTER: Final = "ear_attester_claims"
_VERIFIER: Final = "ear_verifier_claims"
_POLICIES: Final = "ear_appraisal_policy_ids"
_RENAMED: Final = {STATUS: "ear_status", VECTOR: "ear_trustworthiness_vector"}
_RUNTIME: Final = "runtime_data_claims"
_PARSED: Final = {_RUNTIME: ("runtime_data", "report_data"), "init_data_claims": ("init_data",)}
"""Member of today's evidence → names under :data:`_VERIFIER`."""


def understood(claims: JsonObject) -> JsonObject:
    """Return a token's claims with the members of today's form in every submodule.

    Raises:
        FormatError: a submodule says something in one form and something else in the other.
    """
    submods = claims.get("submods")
    if not isinstance(submods, Mapping):
        return claims
    read = {name: _submodule(name, part) for name, part in submods.items()}
    return {**claims, "submods": read}


def _submodule(name: str, part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    told: JsonObject = {ours: part[theirs] for ours, theirs in _RENAMED.items() if theirs in part}
    if _POLICIES in part:
        told[APPRAISED_BY] = _only(part[_POLICIES])
    if _ATTESTER in part:
        told[EVIDENCE] = _evidence(part[_ATTESTER], part.get(_VERIFIER), name)
    for member, value in told.items():
        if member in part and not _agree(part[member], value):
            raise FormatError(f"the token says of {name} two different things as {member}")
    return {**told, **part}


def _only(policies: Any) -> Any:
    """Return the policy that judged; of several, none can be asked for."""
    return policies[0] if isinstance(policies, list) and len(policies) == 1 else policies


def _evidence(attester: Any, verifier: Any, name: str) -> Any:
    if not isinstance(attester, Mapping):
        return attester
    found = dict(attester)
    tee, claims = attester.get("tee"), attester.get("claims")
    if isinstance(tee, str) and isinstance(claims, Mapping):
        del found["tee"], found["claims"]
        found[tee] = claims
    added = verifier if isinstance(verifier, Mapping) else {}
    for member, names in _PARSED.items():
        # As text it would be the digest.
        said = [added[each] for each in names if isinstance(added.get(each), Mapping)]
        said += [found[member]] if member in found else []
        if any(each != said[0] for each in said):
            raise FormatError(f"the token says of {name} two different things as {member}")
        if said:
            found[member] = said[0]
    return found


def _agree(ours: Any, theirs: Any) -> bool:
    """Whether two forms say the same; evidence may be whole in one of them alone."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return all(_agree(ours[name], theirs[name]) for name in ours.keys() & theirs.keys())
    return bool(ours == theirs)
