# SPDX-License-Identifier: Apache-2.0
"""Tokens in the form of the EAR draft to come, beside today's."""

import copy
import datetime as dt
from typing import Any

import pytest
from _tokens import Keys, trusting
from hypothesis import given
from hypothesis import strategies as st

from cocos._types import UnverifiedToken
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, EvidenceError, FormatError
from cocos.policy import defaults
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy
from cocos.tokens.check import JudgedBy, tee_public_key
from cocos.tokens.published import understood

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEY = SigningKey.generate()
JWK = {"alg": "ECDH-ES+A256KW", "crv": "P-256", "kty": "EC", "x": "x", "y": "y"}
OTHER = JWK | {"x": "other"}
RUNTIME = {"nonce": "n", "tee-pubkey": JWK}
VERDICT = {"ear_status": "affirming", "ear_appraisal_policy_ids": ["default"]}
SNP = {"measurement": "aa"}
ATTESTER: dict[str, Any] = {"snp": SNP, "report_data": "rr", "init_data": "ii"}
FORMS: dict[str, dict[str, Any]] = {
    "all of it moved": {"ear_attester_claims": ATTESTER | {"runtime_data_claims": RUNTIME}},
    "by whose word": {
        "ear_attester_claims": ATTESTER,
        "ear_verifier_claims": {"report_data": RUNTIME, "init_data": {"a": 1}},
    },
    "with names": {
        "ear_attester_claims": {"tee": "snp", "claims": SNP, "report_data": "rr"},
        "ear_verifier_claims": {"runtime_data": RUNTIME},
    },
}


def signed(part: Any, **more: Any) -> UnverifiedToken:
    times = {"iat": NOW.timestamp(), "exp": NOW.timestamp() + 300}
    return UnverifiedToken(KEY.sign({}, {"submods": {"cpu0": part}, **times, **more}))


async def read(part: Any) -> Any:
    return await trusting(KEY).verify(signed(part), NOW)


def allowed(claims: Any) -> Any:
    policy = Policy(defaults.text(defaults.RESOURCE))
    base = BaseDocuments.of({}, lapsed=frozenset(), operator={})
    return policy.evaluate(("allow",), claims, base=base)["allow"]


@pytest.mark.parametrize("form", FORMS)
async def test_the_same_as_today(form: str) -> None:
    claims = await read(FORMS[form] | VERDICT)
    assert tee_public_key(claims) == JWK
    submod = claims["submods"]["cpu0"]
    assert submod["ear.veraison.annotated-evidence"]["snp"] == SNP
    assert submod["ear.veraison.annotated-evidence"]["report_data"] == "rr"
    assert submod["ear_status"] == "affirming"  # policies for the draft look there
    assert allowed(claims) is True


@pytest.mark.parametrize("status", ["none", "warning", "contraindicated", "Affirming", None, 2])
async def test_another_verdict(status: Any) -> None:
    assert allowed(await read(FORMS["with names"] | VERDICT | {"ear_status": status})) is False


async def test_no_verdict() -> None:
    assert allowed(await read(FORMS["with names"])) is False


@pytest.mark.parametrize("form", FORMS)
async def test_both_forms_that_agree(form: str) -> None:
    """A service that changes over writes both."""
    today = {
        "ear.status": "affirming",
        "ear.veraison.annotated-evidence": {"snp": SNP, "runtime_data_claims": RUNTIME},
    }
    assert tee_public_key(await read(FORMS[form] | VERDICT | today)) == JWK


@pytest.mark.parametrize(
    "today",
    [
        {"ear.status": "warning"},
        {"ear.status": None},
        {"ear.appraisal-policy-id": "lax"},
        {"ear.veraison.annotated-evidence": {"runtime_data_claims": {"tee-pubkey": OTHER}}},
        {"ear.veraison.annotated-evidence": {"runtime_data_claims": None}},
        {"ear.veraison.annotated-evidence": {"snp": {"measurement": "bb"}}},
        {"ear.veraison.annotated-evidence": None},
    ],
    ids=range(7),
)
@pytest.mark.parametrize("form", FORMS)
async def test_both_forms_that_do_not(form: str, today: Any) -> None:
    """A policy would look at one and the program at the other."""
    with pytest.raises(EvidenceError, match="two different things"):
        await read(FORMS[form] | VERDICT | today)


async def test_two_keys_in_the_new_form() -> None:
    part = copy.deepcopy(FORMS["all of it moved"] | VERDICT)
    part["ear_verifier_claims"] = {"runtime_data": {"nonce": "n", "tee-pubkey": OTHER}}
    with pytest.raises(EvidenceError, match="two different things"):
        await read(part)
    part["ear_verifier_claims"] = {"runtime_data": RUNTIME, "report_data": {"tee-pubkey": OTHER}}
    with pytest.raises(EvidenceError, match="two different things"):
        await read(part)


@pytest.mark.parametrize("policies", [["default"], ["lax"], [], ["default", "lax"], "default", 1])
async def test_the_policy_that_judged(policies: Any) -> None:
    judged = JudgedBy(Keys(KEY), "default")
    token = signed(FORMS["with names"] | VERDICT | {"ear_appraisal_policy_ids": policies})
    if policies in (["default"], "default"):
        assert await judged.verify(token)
    else:
        with pytest.raises(AuthenticationError, match="not judged"):
            await judged.verify(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "ear_attester_claims",
                    "ear_verifier_claims",
                    "ear_status",
                    "ear.status",
                    "tee",
                    "claims",
                    "runtime_data",
                    "report_data",
                    "runtime_data_claims",
                    "ear_appraisal_policy_ids",
                    "ear.veraison.annotated-evidence",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(part=JSON)
def test_any_submodule(part: Any) -> None:
    """Nothing is lost, nothing is said twice, and reading again changes nothing."""
    try:
        once = understood({"submods": {"cpu0": part}})
    except FormatError:
        return
    assert understood(once) == once
    if isinstance(part, dict):
        found = once["submods"]["cpu0"]
        assert {name: found[name] for name in part} == part
