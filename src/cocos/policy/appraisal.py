# SPDX-License-Identifier: Apache-2.0
"""From a policy's ``trust_claims`` to a trustworthiness vector and a status (AR4SI).

A policy can say anything; what does not read as a vector is contraindicated and explained.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cocos.errors import Finding
from cocos.wire import json

CLAIMS: Final = (
    "instance-identity",
    "configuration",
    "executables",
    "file-system",
    "hardware",
    "runtime-opaque",
    "storage-opaque",
    "sourced-data",
)
UNRECOGNISED: Final[Mapping[str, int]] = {"configuration": 36, "executables": 33, "hardware": 97}
"""The vector of evidence that no policy could appraise."""

_VALUES = range(-128, 128)


class Status(enum.StrEnum):
    """Tiers of trust, from no statement to worst."""

    NONE = "none"
    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


_ORDER: Final = list(Status)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of one part of an attester.

    Attributes:
        status: Worst tier over the vector.
        vector: Claim → value, only claims that were set, in the order of :data:`CLAIMS`.
        extensions: Further members for the token, by name.
        findings: Everything that is not affirming, and everything that did not parse.
    """

    status: Status
    vector: dict[str, int]
    extensions: dict[str, Any]
    findings: tuple[Finding, ...] = ()


def tier(value: int) -> Status:
    """Return the tier of one claim's value, -128 to 127."""
    if -1 <= value <= 1:
        return Status.NONE
    if -32 <= value <= 31:  # noqa: PLR2004 - the bounds of AR4SI §2.3.2
        return Status.AFFIRMING
    if -96 <= value <= 95:  # noqa: PLR2004
        return Status.WARNING
    return Status.CONTRAINDICATED


def appraise(trust_claims: object, extensions: object = None, findings: object = None) -> Verdict:
    """Read what a policy returned; never raises.

    Args:
        trust_claims: Value of ``data.policy.trust_claims``; None when undefined.
        extensions: Value of ``data.policy.extensions``; None when undefined.
        findings: Value of ``data.policy.findings``, which explain the claims and change
            nothing; None when undefined.
    """
    problems = [*_vector_problems(trust_claims), *_extension_problems(extensions)]
    if problems or not isinstance(trust_claims, Mapping):
        return Verdict(Status.CONTRAINDICATED, dict(UNRECOGNISED), {}, tuple(problems))
    vector = {name: trust_claims[name] for name in CLAIMS if name in trust_claims}
    status = max((tier(value) for value in vector.values()), key=_ORDER.index)
    entries = extensions if isinstance(extensions, list) else []
    members = {entry["name"]: entry["value"] for entry in entries}
    doubts = _doubts(vector, status)
    if doubts:
        doubts = [*explanations(findings), *doubts]
    return Verdict(status, vector, members, tuple(doubts))


def explanations(findings: object) -> list[Finding]:
    """Read what a policy says for those who may know why; whatever does not read is left out.

    Args:
        findings: Value of ``data.policy.findings``; None when undefined.
    """
    entries = findings if isinstance(findings, list) else []
    return [
        Finding(
            str(entry["check"]),
            str(entry["problem"]),
            _text(entry.get("actual", "")),
            _words(entry.get("expected", "")),
        )
        for entry in entries
        if isinstance(entry, Mapping) and {"check", "problem"} <= entry.keys()
    ]


def _words(value: object) -> str:
    """Say a value of a policy in words; the elements of an array are alternatives."""
    if isinstance(value, list):
        return " or ".join(map(_words, value)) or "nothing is registered"
    return _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.encode(value).decode()


def _doubts(vector: Mapping[str, int], status: Status) -> list[Finding]:
    if status is Status.NONE:
        return [Finding("trust_claims", "the policy affirms nothing", expected="2 to 31")]
    return [
        Finding(name, f"the policy's verdict is {tier(value)}", str(value), "2 to 31 (affirming)")
        for name, value in vector.items()
        if tier(value) in {Status.WARNING, Status.CONTRAINDICATED}
    ]


def _vector_problems(claims: object) -> list[Finding]:
    check = "trust_claims"
    if claims is None:
        return [Finding(check, "the policy has no rule trust_claims that applies")]
    if not isinstance(claims, Mapping):
        return [Finding(check, "the policy's trust_claims is not an object", _show(claims))]
    if not claims:
        return [Finding(check, "the policy's trust_claims is empty")]
    problems = []
    for name, value in claims.items():
        if name not in CLAIMS:
            known = ", ".join(CLAIMS)
            problems.append(
                Finding(f"{check}.{_show(name)}", "no such trust claim", _show(name), known)
            )
        elif isinstance(value, bool) or not isinstance(value, int) or value not in _VALUES:
            problems.append(
                Finding(
                    f"{check}.{name}",
                    "the value of a trust claim is an integer",
                    _show(value),
                    "-128 to 127",
                )
            )
    return problems


def _extension_problems(extensions: object) -> list[Finding]:
    check = "extensions"
    if extensions is None:
        return []
    if not isinstance(extensions, list):
        return [Finding(check, "the policy's extensions are not an array", _show(extensions))]
    problems, names = [], set()
    for entry in extensions:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or "value" not in entry:
            problems.append(Finding(check, "an extension needs a name and a value", _show(entry)))
        elif name in names or name in _RESERVED:
            problems.append(Finding(check, "an extension's name is taken", _show(name)))
        else:
            names.add(name)
    return problems


STATUS: Final = "ear.status"
VECTOR: Final = "ear.trustworthiness-vector"
APPRAISED_BY: Final = "ear.appraisal-policy-id"
EVIDENCE: Final = "ear.veraison.annotated-evidence"

INSECURE: Final = "ear.cocos.insecure"
"""Member of a submodule whose evidence proves nothing; no policy can set or remove it."""

UNBOUND_EVIDENCE: Final = "unbound-evidence"
"""In it: the evidence was bound to nothing, and may be a recorded one of any age."""

FINDINGS: Final = "ear.cocos.findings"
"""Member of a submodule that is not affirming: why; no policy can set or remove it."""

_RESERVED: Final = {
    INSECURE,
    FINDINGS,
    STATUS,
    VECTOR,
    APPRAISED_BY,
    EVIDENCE,
}


def _show(value: object) -> str:
    return repr(value)[:100]
