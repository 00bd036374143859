# SPDX-License-Identifier: Apache-2.0
"""From what a policy says to a status; the default attestation policies."""

from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy.appraisal import CLAIMS, INSECURE, UNRECOGNISED, Status, appraise, tier
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

GOOD = dict.fromkeys(CLAIMS, 0) | {"hardware": 2, "executables": 3, "configuration": 2}
ALLOWED = {"operator": {"insecure_allow_sample": True}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-128, "contraindicated"),
        (-97, "contraindicated"),
        (-96, "warning"),
        (-33, "warning"),
        (-32, "affirming"),
        (-2, "affirming"),
        (-1, "none"),
        (0, "none"),
        (1, "none"),
        (2, "affirming"),
        (31, "affirming"),
        (32, "warning"),
        (95, "warning"),
        (96, "contraindicated"),
        (127, "contraindicated"),
    ],
)
def test_tiers(value: int, expected: str) -> None:
    assert tier(value) == expected
    assert appraise({"hardware": value}).status == expected


def test_worst_claim_decides() -> None:
    assert appraise(GOOD).status is Status.AFFIRMING
    assert appraise(GOOD).findings == ()
    assert appraise(GOOD | {"file-system": 32}).status is Status.WARNING
    verdict = appraise(GOOD | {"file-system": 32, "hardware": 97})
    assert verdict.status is Status.CONTRAINDICATED
    assert [(f.check, f.actual) for f in verdict.findings] == [
        ("file-system", "32"),
        ("hardware", "97"),
    ]
    assert list(verdict.vector) == list(CLAIMS)


def test_nothing_claimed_is_not_affirming() -> None:
    verdict = appraise(dict.fromkeys(CLAIMS, 0))
    assert verdict.status is Status.NONE
    assert verdict.findings


@pytest.mark.parametrize(
    "claims",
    [
        None,
        {},
        [],
        "affirming",
        True,
        2,
        GOOD | {"unknown": 2},
        GOOD | {"": 2},
        GOOD | {"hardware": "2"},
        GOOD | {"hardware": 2.0},
        GOOD | {"hardware": True},
        GOOD | {"hardware": None},
        GOOD | {"hardware": 128},
        GOOD | {"hardware": -129},
        GOOD | {"hardware": 258},
        GOOD | {"hardware": 10**40},
    ],
)
def test_what_is_no_vector_is_contraindicated_and_explained(claims: Any) -> None:
    verdict = appraise(claims)
    assert verdict.status is Status.CONTRAINDICATED
    assert verdict.vector == UNRECOGNISED
    assert verdict.findings


def test_all_problems_at_once() -> None:
    verdict = appraise({"a": 1, "hardware": 1000, "b": 2})
    assert len(verdict.findings) == 3


def test_extensions() -> None:
    entry = {"name": "ear.x", "key": -1, "value": {"a": [1]}}
    assert appraise(GOOD, [entry]).extensions == {"ear.x": {"a": [1]}}
    assert appraise(GOOD, []).extensions == {}


@pytest.mark.parametrize(
    "extensions",
    [
        {},
        "x",
        [1],
        [{}],
        [{"name": 1, "value": 1}],
        [{"name": "a"}],
        [{"name": "a", "value": 1}] * 2,
        [{"name": "ear.status", "value": "affirming"}],
        [{"name": "ear.trustworthiness-vector", "value": {}}],
        [{"name": "ear.veraison.annotated-evidence", "value": {}}],
        [{"name": INSECURE, "value": []}],
    ],
)
def test_extensions_cannot_rewrite_the_verdict(extensions: Any) -> None:
    verdict = appraise(GOOD, extensions)
    assert verdict.status is Status.CONTRAINDICATED
    assert verdict.extensions == {}
    assert verdict.findings


def judge(name: str, document: Any, data: Any) -> str:
    policy = Policy(defaults.text(name))
    rules = ("trust_claims", "extensions")
    said = policy.evaluate(rules, document, base=BaseDocuments.of(**data))
    return appraise(*said.values()).status


SAMPLE = {"sample": {"svn": "1", "debug": False}}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"operator": {}},
        {"operator": {"insecure_allow_sample": False}},
        {"operator": {"insecure_allow_sample": "true"}},
        {"operator": {"insecure_allow_sample": 1}},
        {"operator": True},
        {"reference_values": {"svn": ["1"], "launch_digest": ["abcde"]}},
    ],
)
def test_sample_is_contraindicated_unless_the_operator_allows_it(data: Any) -> None:
    assert judge("default_cpu", SAMPLE, data) == "contraindicated"
    assert judge("default_gpu", {"sampledevice": {"svn": "2"}}, data) == "contraindicated"


def test_sample_is_affirming_when_allowed() -> None:
    assert judge("default_cpu", SAMPLE, ALLOWED) == "affirming"
    assert judge("default_gpu", {"sampledevice": {"svn": "2"}}, ALLOWED) == "affirming"


@pytest.mark.parametrize(
    "document",
    [{}, {"snp": {}}, {"unknown": {"debug": False}}, {"sample": None}, {"sample": "x"}],
)
def test_unknown_tee_is_contraindicated(document: Any) -> None:
    assert judge("default_cpu", document, ALLOWED) == "contraindicated"
    assert judge("default_gpu", document, ALLOWED) == "contraindicated"


def test_debug_sample_is_not_affirming() -> None:
    assert judge("default_cpu", {"sample": {"debug": True}}, ALLOWED) == "warning"


def test_identifiers_of_containers() -> None:
    def container(image: str, uid: int) -> dict[str, Any]:
        annotations = {"io.kubernetes.cri.image-name": image}
        return {"OCI": {"Annotations": annotations, "Process": {"User": {"UID": uid}}}}

    claims = {"containers": [container("a", 0), {"OCI": {}}, container("b", 1)]}
    document = {**SAMPLE, "init_data_claims": {"agent_policy_claims": claims}}
    policy = Policy(defaults.text("default_cpu"))
    said = policy.evaluate(["extensions"], document, base=BaseDocuments.of(**ALLOWED))
    (extension,) = said["extensions"]
    assert extension == {
        "name": "ear.trustee.identifiers",
        "key": -18,
        "value": {"validated": {"container_images": ["a", "b"], "container_uids": [0, 1]}},
    }
