# SPDX-License-Identifier: Apache-2.0
"""How GPUs of NVIDIA are appraised by default."""

from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy.appraisal import Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

ZERO, TWO, THREE = "00" * 48, "22" * 48, "33" * 48
CLAIMS: dict[str, Any] = {
    "arch": "Hopper",
    "uuid": "unknown",
    "measurements": {"1": ZERO, "2": TWO, "3": THREE},
    "config": {"vbios_version": "96.00.9f.00.01", "driver_version": "550.90.07"},
}
VALUES: dict[str, Any] = {
    "nvidia_measurements": [{"2": TWO, "3": [TWO, THREE]}],
    "allowed_vbios_versions": ["96.00.9f.00.01"],
    "allowed_driver_versions": ["550.90.07"],
}


def judge(claims: Any = CLAIMS, **changes: Any) -> Verdict:
    base = BaseDocuments.of(VALUES | changes, lapsed=frozenset(), operator={})
    policy = Policy(defaults.text("default_gpu"))
    rules = ("trust_claims", "extensions", "findings")
    said = policy.evaluate(rules, {"nvidia": claims}, base=base)
    return appraise(*(said[rule] for rule in rules))


def test_as_registered() -> None:
    verdict = judge()
    assert (verdict.status, verdict.findings) == ("affirming", ())


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("value", [None, [], "", {}, [None], [[]], [{}], ["x"], [1], 1, True])
def test_anything_else_registered(name: str, value: Any) -> None:
    assert judge(**{name: value}).status == "warning"


@pytest.mark.parametrize(
    ("reference", "accepted"),
    [
        ({"1": ZERO, "2": TWO, "3": THREE}, True),
        ({"1": "any", "2": TWO, "3": "any"}, True),
        ({"2": TWO}, False),  # index 3 is not zero
        ({"2": TWO, "3": TWO}, False),
        ({"2": TWO, "3": THREE, "4": "any"}, False),  # which the GPU does not have
        ({"1": TWO, "2": TWO, "3": THREE}, False),
        ({"2": TWO, "3": []}, False),
        ({"1": [], "2": TWO, "3": THREE}, True),
    ],
)
def test_each_measurement_counts(reference: Any, accepted: bool) -> None:
    verdict = judge(nvidia_measurements=[reference])
    assert (verdict.status == "affirming") is accepted
    named = [each.check for each in verdict.findings if each.check.startswith("nvidia.")]
    assert bool(named) is not accepted
    # One set, and not pieces of two.
    pieces = [{"2": TWO, "3": TWO}, {"2": THREE, "3": THREE}]
    assert judge(nvidia_measurements=pieces).status == "warning"


@pytest.mark.parametrize("member", ["vbios_version", "driver_version"])
@pytest.mark.parametrize("value", [None, "", "0", ["550.90.07"]])
def test_versions(member: str, value: Any) -> None:
    verdict = judge(CLAIMS | {"config": CLAIMS["config"] | {member: value}})
    assert verdict.status == "warning"
    assert f"nvidia.{member}" in [each.check for each in verdict.findings]


@pytest.mark.parametrize("claims", [None, {}, [], "x", {"measurements": None}, {"config": {}}])
def test_nothing_claimed(claims: Any) -> None:
    assert judge(claims).status == "contraindicated"
    assert judge({"measurements": {}, "config": {}}).status == "warning"
