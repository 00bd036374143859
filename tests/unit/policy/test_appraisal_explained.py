# SPDX-License-Identifier: Apache-2.0
"""What an appraisal says beside its status: the vector of the unknown, and policies' words."""

from typing import Any

import pytest

from cocos.errors import Finding
from cocos.policy.appraisal import CLAIMS, Status, appraise, explanations

GOOD = {"hardware": 2, "executables": 3}
DOUBTFUL = {"hardware": 97}
WHY = {"check": "tpm.pcr11", "problem": "another image", "actual": "aa", "expected": ["bb", "cc"]}


@pytest.mark.parametrize("claims", [None, [], {}, 1, "x", {"hardware": True}, {"none such": 2}])
def test_what_is_no_vector_is_the_vector_of_the_unknown(claims: object) -> None:
    verdict = appraise(claims)
    assert verdict.status is Status.CONTRAINDICATED
    assert verdict.vector == {"configuration": 36, "executables": 33, "hardware": 97}
    assert verdict.findings


def test_no_rule_and_no_object_are_told_apart() -> None:
    (undefined,) = appraise(None).findings
    assert undefined.problem == "the policy has no rule trust_claims that applies"
    (text,) = appraise("x").findings
    assert text.problem == "the policy's trust_claims is not an object"


def test_a_policys_own_words_stand_before_ours_and_only_where_there_is_a_doubt() -> None:
    assert appraise(GOOD, findings=[WHY]).findings == ()
    found = appraise(DOUBTFUL, findings=[WHY]).findings
    assert [each.check for each in found] == ["tpm.pcr11", "hardware"]
    assert found[0] == Finding("tpm.pcr11", "another image", "aa", "bb or cc")


@pytest.mark.parametrize(
    "findings",
    [
        None,
        {},
        "text",
        {"check": "a", "problem": "b"},
        [1],
        ["check problem"],
        [["check", "problem"]],
        [{"check": "a"}],
        [{"problem": "a"}],
        [{}],
    ],
)
def test_what_does_not_read_is_left_out(findings: object) -> None:
    assert explanations(findings) == []


@pytest.mark.parametrize(
    ("entry", "actual", "expected"),
    [
        ({}, "", ""),
        ({"actual": 1, "expected": True}, "1", "true"),
        ({"actual": {"a": None}, "expected": {"b": [1]}}, '{"a":null}', '{"b":[1]}'),
        ({"actual": ["a", "b"], "expected": ["a", "b"]}, '["a","b"]', "a or b"),
        ({"expected": [1, "b", ["c"]]}, "", "1 or b or c"),
        ({"expected": []}, "", "nothing is registered"),
    ],
)
def test_words(entry: dict[str, Any], actual: str, expected: str) -> None:
    assert explanations([{"check": 1, "problem": ["p"], **entry}]) == [
        Finding("1", "['p']", actual, expected)
    ]


def test_what_a_policy_said_is_cut() -> None:
    (finding,) = appraise("x" * 1000).findings
    assert finding.actual == "'" + "x" * 99
    (name,) = appraise({"y" * 1000: 1}).findings
    assert len(name.actual) == 100
    assert name.expected == ", ".join(CLAIMS)
