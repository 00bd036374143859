# SPDX-License-Identifier: Apache-2.0
"""Whose token counts, and which key it is about: each check on its own."""

import base64
import datetime as dt
import warnings
from typing import Any

import pytest
from _certificates import NOW, Party
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cocos._types import UnverifiedToken, VerifiedClaims
from cocos.cli.kbs.tokens import token_verifier
from cocos.crypto.signing import SigningKey
from cocos.errors import (
    AuthenticationError,
    EvidenceError,
    FormatError,
    PeerError,
    UnreachableError,
)
from cocos.kbs.config import Settings
from cocos.tokens.chains import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES, CertifiedKeys
from cocos.tokens.check import JudgedBy, TokenVerifier, tee_public_key

KEY = SigningKey.generate()
TOKEN = UnverifiedToken(KEY.sign({}, {"exp": int(NOW.timestamp()) + 60}))
ROOT = Party("root").certify(ca=True)


class Refuses:
    """Issuers, none of whom signed anything, for this reason."""

    def __init__(self, problem: AuthenticationError | FormatError | PeerError) -> None:
        self.problem = problem

    async def verify(self, token: str) -> dict[str, Any]:  # noqa: ARG002 - the interface's
        raise self.problem


AWAY = Refuses(UnreachableError("the issuer is away"))
FIRST, SECOND = Refuses(AuthenticationError("not ours")), Refuses(FormatError("not theirs"))


async def test_every_reason_is_told_once() -> None:
    for issuers in ([FIRST, SECOND], [FIRST, SECOND, FIRST, SECOND]):
        with pytest.raises(EvidenceError, match=r": not ours; not theirs$"):
            await TokenVerifier(issuers).verify(TOKEN, NOW)


async def test_an_issuer_that_is_away_may_have_signed_it() -> None:
    for issuers in ([AWAY], [AWAY, FIRST], [FIRST, AWAY]):
        with pytest.raises(UnreachableError, match="away"):
            await TokenVerifier(issuers).verify(TOKEN, NOW)


async def test_what_is_no_token_is_nobodys_whoever_is_away() -> None:
    with pytest.raises(EvidenceError, match="not a signed JWT"):
        await TokenVerifier([AWAY]).verify(UnverifiedToken("nonsense"), NOW)


class Says:
    """An issuer whose tokens have these claims."""

    def __init__(self, claims: dict[str, Any]) -> None:
        self.claims = {"exp": int(NOW.timestamp()) + 60, **claims}

    async def verify(self, token: str) -> dict[str, Any]:  # noqa: ARG002 - the interface's
        return self.claims


JUDGED = {"ear.appraisal-policy-id": "default", "ear.status": "affirming"}
OTHERWISE = {**JUDGED, "ear.appraisal-policy-id": "lab"}


@pytest.mark.parametrize(
    "submods",
    [
        {"cpu0": OTHERWISE},
        {"cpu0": JUDGED, "gpu0": OTHERWISE},
        {"cpu0": {**JUDGED, "ear.appraisal-policy-id": ["default"]}},
        {"cpu0": {**JUDGED, "ear.appraisal-policy-id": None}},
        *(None, 1, "text", [JUDGED], {}, {"cpu0": {}}, {"cpu0": 1}, {"cpu0": "x"}, {"cpu0": [1]}),
    ],
)
async def test_who_asks_an_attestation_service_chooses_no_policy_for_us(submods: Any) -> None:
    """It may know laxer ones, for others; anybody who reaches it names the one to judge by."""
    issuers = [JudgedBy(Says({"submods": submods}), "default")]
    with pytest.raises(EvidenceError, match="not judged by the policy"):
        await TokenVerifier(issuers).verify(TOKEN, NOW)


async def test_what_was_judged_as_we_ask_for() -> None:
    both = {"submods": {"cpu0": JUDGED, "gpu0": JUDGED}}
    found = await TokenVerifier([JudgedBy(Says(both), "default")]).verify(TOKEN, NOW)
    assert found["submods"] == both["submods"]


async def test_own_tokens_are_judged_as_we_ask_for() -> None:
    settings = Settings()
    for policy, held in (("default", True), ("lab", False)):
        submods = {"cpu0": {**JUDGED, "ear.appraisal-policy-id": policy}}
        tokens = token_verifier(settings, Says({"submods": submods}), clock=lambda: NOW)
        if held:
            await tokens.verify(TOKEN, NOW)
        else:
            with pytest.raises(EvidenceError, match="lab"):
                await tokens.verify(TOKEN, NOW)


STANDARD: dict[str, Any] = {"submods": {"cpu0": {"ear.veraison.annotated-evidence": {}}}}
OWN = {"kty": "EC"}


def with_key(key: object) -> dict[str, Any]:
    evidence = {"runtime_data_claims": {"tee-pubkey": key}}
    return {"submods": {"cpu0": {"ear.veraison.annotated-evidence": evidence}}}


def test_the_first_pointer_that_leads_anywhere_decides() -> None:
    claims = VerifiedClaims({**with_key(OWN), "tee-pubkey": {"kty": "RSA"}, "a": {"b": OWN}})
    assert tee_public_key(claims) == OWN
    assert tee_public_key(claims, ["/nowhere"]) == OWN
    assert tee_public_key(VerifiedClaims({"a": {"b/c": OWN}}), ["/a/b~1c"]) == OWN


@pytest.mark.parametrize("value", ["text", 1, [OWN], True, ""])
def test_what_a_pointer_leads_to_must_be_a_key(value: object) -> None:
    """A token whose named key is none must not be about another one."""
    with pytest.raises(EvidenceError, match="names no TEE public key") as caught:
        tee_public_key(VerifiedClaims({**with_key(OWN), "own": value}), ["/own"])
    assert caught.value.findings[0].expected == "/own"


@pytest.mark.parametrize(
    "claims",
    [
        {"tdx": "attester_runtime_data"},
        {"tdx": ["attester_runtime_data"]},
        {"tdx": {"attester_runtime_data": "tee-pubkey"}},
        {"submods": 1},
        STANDARD,
        {},
    ],
)
def test_pointers_into_what_is_no_object_lead_nowhere(claims: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="names no TEE public key"):
        tee_public_key(VerifiedClaims(claims))


def token(signer: Party, x5c: object) -> str:
    key = signer.signing_key
    return key.sign({"jwk": {**key.public_jwk(), "x5c": x5c}}, {"a": 1})


async def verify(text: str, now: dt.datetime = NOW) -> dict[str, Any]:
    return await CertifiedKeys([ROOT.certificate], clock=lambda: now).verify(text)


async def test_how_many_certificates() -> None:
    leaf = Party("leaf").certify(ROOT)
    chain = [leaf.x5c, *[Party("other").certify(ca=True).x5c] * (MAX_CERTIFICATES - 1)]
    assert len(chain) == 8
    assert await verify(token(leaf, chain)) == {"a": 1}
    with pytest.raises(AuthenticationError, match="more than 8 certificates"):
        await verify(token(leaf, [*chain, ROOT.x5c]))


@pytest.mark.parametrize("x5c", [None, [], {}, "abc", 1, {"a": 1}, [1], [None], [["A"]]])
async def test_what_is_no_list_of_certificates(x5c: object) -> None:
    with pytest.raises(
        (AuthenticationError, FormatError), match=r"has no certificate|malformed|no text"
    ):
        await verify(token(ROOT, x5c))


async def test_what_is_no_certificate() -> None:
    assert MAX_CERTIFICATE_BYTES == 16384
    with pytest.raises(FormatError, match="malformed"):
        await verify(token(ROOT, ["A" * 2 * MAX_CERTIFICATE_BYTES]))
    with pytest.raises(FormatError, match="is no text, or too long"):
        await verify(token(ROOT, ["A" * (2 * MAX_CERTIFICATE_BYTES + 1)]))


async def test_a_ca_that_says_that_it_certifies() -> None:
    between = Party("between").certify(ROOT, ca=True, certifies=True)
    leaf = Party("leaf").certify(between, certifies=False)
    assert await verify(token(leaf, [leaf.x5c, between.x5c])) == {"a": 1}
    for wrong in (
        Party("between").certify(ROOT, ca=True, certifies=False),
        Party("between").certify(ROOT, ca=False, certifies=True),
        Party("between").certify(ROOT),
    ):
        leaf = Party("leaf").certify(wrong)
        with pytest.raises(AuthenticationError, match="does not lead to a trusted one"):
            await verify(token(leaf, [leaf.x5c, wrong.x5c]))


async def test_a_certificate_that_the_library_only_warns_of() -> None:
    """Its warnings are errors here, whatever this process does with others."""
    der = bytearray(ROOT.certificate.public_bytes(Encoding.DER))
    serial = ROOT.certificate.serial_number.to_bytes(20, "big").lstrip(b"\0")
    place = der.index(serial)
    der[place] |= 0x80  # a negative number now
    if serial[0] & 0x80:
        pytest.fail("certificates of the tests have positive numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FormatError, match="malformed"):
            await verify(token(ROOT, [base64.b64encode(der).decode()]))


async def test_a_certificate_whose_key_is_no_point_of_its_curve() -> None:
    der = bytearray(ROOT.certificate.public_bytes(Encoding.DER))
    public = ROOT.certificate.public_key()
    point = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    der[der.index(point) + len(point) - 1] ^= 1
    with pytest.raises(FormatError, match="malformed"):
        await verify(token(ROOT, [base64.b64encode(der).decode()]))
