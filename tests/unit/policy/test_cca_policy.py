# SPDX-License-Identifier: Apache-2.0
"""How realms of Arm CCA are appraised by default."""

import base64
from typing import Any

import pytest

from cocos.policy import defaults
from cocos.policy.appraisal import Verdict, appraise
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy

ZERO = base64.b64encode(bytes(32)).decode()
RIM = base64.b64encode(b"\x38" * 32).decode()
KIND = base64.b64encode(b"\x96" * 32).decode()
COMPONENTS = [{"measurement-value": RIM, "signer-id": KIND, "version": "1"}]
CLAIMS: dict[str, Any] = {
    "realm": {
        "cca-realm-initial-measurement": RIM,
        "cca-realm-extensible-measurements": [ZERO] * 4,
    },
    "platform": {
        "cca-platform-implementation-id": KIND,
        "cca-platform-sw-components": COMPONENTS,
    },
}
VALUES: dict[str, Any] = {
    "cca_implementation_id": [KIND],
    "cca_sw_components": [COMPONENTS],
    "cca_realm_initial_measurement": [RIM],
}


def judge(claims: Any = CLAIMS, init_data: str = "00" * 64, **values: Any) -> Verdict:
    base = BaseDocuments.of(VALUES | values, lapsed=frozenset(), operator={})
    policy = Policy(defaults.text("default_cpu"))
    rules = ("trust_claims", "extensions", "findings")
    document = {"cca": claims, "init_data": init_data, "init_data_claims": None}
    said = policy.evaluate(rules, document, base=base)
    return appraise(*(said[rule] for rule in rules))


def test_as_registered() -> None:
    verdict = judge()
    assert (verdict.status, verdict.findings) == ("affirming", ())


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("value", [None, [], "", {}, [None], [[]], ["x"], 1, True, RIM, COMPONENTS])
def test_anything_else_registered(name: str, value: Any) -> None:
    assert judge(**{name: value}).status in {"warning", "contraindicated"}


def test_what_a_realm_measured_must_be_registered() -> None:
    measured = [RIM, ZERO, ZERO, ZERO]
    realm = CLAIMS["realm"] | {"cca-realm-extensible-measurements": measured}
    claims = CLAIMS | {"realm": realm}
    assert judge(claims).status == "warning"
    assert judge(claims, cca_realm_extensible_measurements=[measured]).status == "affirming"
    # Once registered, it has to be there.
    assert judge(cca_realm_extensible_measurements=[measured]).status == "warning"
    for few in ([], [ZERO] * 3, None):
        realm = CLAIMS["realm"] | {"cca-realm-extensible-measurements": few}
        assert judge(CLAIMS | {"realm": realm}).status == "warning"


def test_init_data_that_nobody_shows() -> None:
    verdict = judge(init_data="01" * 64)
    assert verdict.status == "warning"
    assert "init_data" in [each.check for each in verdict.findings]


@pytest.mark.parametrize("claims", [None, [], "x", {}, {"realm": {}}, {"platform": {}}])
def test_nothing_claimed(claims: Any) -> None:
    assert judge(claims).status == "contraindicated"
