# SPDX-License-Identifier: Apache-2.0
"""Attestation tokens: their exact form, and every way in which one must be refused."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _tokens import Keys, trusting

from cocos._types import UnverifiedToken, VerifiedClaims
from cocos.crypto import jwt
from cocos.crypto.signing import SigningKey
from cocos.errors import ConfigError, EvidenceError, Finding, FormatError, TooLargeError
from cocos.policy.appraisal import CLAIMS, FINDINGS, INSECURE, appraise
from cocos.tokens import ear
from cocos.tokens.check import TEE_KEY_PATHS, TokenVerifier, tee_public_key
from cocos.tokens.ear import MAX_BYTES, Issuer, Submodule, issue
from cocos.tokens.signer import Signer

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
ISSUER = Issuer("issuer", "developer", "build", "profile", dt.timedelta(minutes=5))
KEY = SigningKey.generate()
JWK = {"alg": "ECDH-ES+A256KW", "crv": "P-256", "kty": "EC", "x": "x", "y": "y"}
GOOD = dict.fromkeys(CLAIMS, 0) | {"hardware": 2, "executables": 3, "configuration": 2}


def submodule(**changes: Any) -> Submodule:
    evidence = {
        "sample": {"svn": "1", "debug": False},
        "report_data": "r",
        "runtime_data_claims": {"tee-pubkey": JWK, "nonce": "n", "additional-evidence": ""},
    }
    verdict = appraise(GOOD, [{"name": "ear.x", "key": 1, "value": 2}])
    fields: dict[str, Any] = {"verdict": verdict, "policy_id": "default", "evidence": evidence}
    return Submodule(**(fields | changes))


def token(key: SigningKey = KEY, **changes: Any) -> UnverifiedToken:
    return issue({"cpu0": submodule(**changes)}, signer=Signer(key), issuer=ISSUER, now=NOW)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def body(text: str) -> Any:
    middle = text.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def padded(length: int) -> UnverifiedToken:
    return token(evidence={"x": "x" * length})


def test_the_largest_token() -> None:
    length = (MAX_BYTES - len(padded(0))) * 3 // 4 - 1  # base64
    assert MAX_BYTES - 4 < len(padded(length)) <= MAX_BYTES
    with pytest.raises(TooLargeError) as caught:
        padded(length + 3)
    assert "verbose_token = false" in (caught.value.hint or "")


def test_the_limit_is_the_last_length_that_is_issued(monkeypatch: pytest.MonkeyPatch) -> None:
    length = len(padded(100))
    monkeypatch.setattr(ear, "MAX_BYTES", length)
    assert len(padded(100)) == length
    monkeypatch.setattr(ear, "MAX_BYTES", length - 1)
    with pytest.raises(TooLargeError):
        padded(100)


def test_the_limit_is_the_one_that_operators_are_told() -> None:
    """It leaves room in a head of 400 KiB for everything else that a guest sends."""
    limits = Path(__file__).parents[3] / "docs" / "operate" / "kbs.md"
    assert f"has to fit into a head | {MAX_BYTES / 1024:g} KiB" in limits.read_text()


def test_why_it_is_not_affirming_shows() -> None:
    assert FINDINGS not in body(token())["submods"]["cpu0"]
    bad = appraise({**GOOD, "hardware": 97})
    found = body(token(verdict=bad))["submods"]["cpu0"][FINDINGS]
    assert [each["check"] for each in found] == ["hardware"]
    assert msgspec.convert(found, tuple[Finding, ...]) == bad.findings


@pytest.mark.parametrize("listed", [list, tuple])
def test_members_are_in_order_at_every_level(listed: Any) -> None:
    evidence = {"b": listed([{"d": 1, "c": listed([2, {"f": 3, "e": 4}])}]), "a": 5}
    shown = body(token(evidence=evidence))["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert json.dumps(shown) == '{"a": 5, "b": [{"c": [2, {"e": 4, "f": 3}], "d": 1}]}'


def test_exact_form() -> None:
    text = token()
    header = jwt.header_of(text)
    assert list(header) == ["typ", "alg", "kid", "jwk"]
    assert header == {"typ": "JWT", "alg": "ES256", "kid": KEY.kid, "jwk": KEY.public_jwk()}
    issued = int(NOW.timestamp())
    claims = body(text)
    assert claims == {
        "eat_profile": "profile",
        "iat": issued,
        "ear.verifier-id": {"developer": "developer", "build": "build"},
        "submods": {
            "cpu0": {
                "ear.status": "affirming",
                "ear.trustworthiness-vector": GOOD,
                "ear.appraisal-policy-id": "default",
                "ear.veraison.annotated-evidence": submodule().evidence,
                "ear.x": 2,
            }
        },
        "exp": issued + 300,
        "iss": "issuer",
    }
    evidence = claims["submods"]["cpu0"]["ear.veraison.annotated-evidence"]
    assert list(evidence["runtime_data_claims"]) == ["additional-evidence", "nonce", "tee-pubkey"]
    assert list(evidence["sample"]) == ["debug", "svn"]
    assert list(claims["submods"]["cpu0"]["ear.trustworthiness-vector"]) == list(CLAIMS)


def test_insecure_shows() -> None:
    assert INSECURE not in body(token())["submods"]["cpu0"]
    assert body(token(insecure=("sample",)))["submods"]["cpu0"][INSECURE] == ["sample"]


def test_nothing_is_not_attested() -> None:
    with pytest.raises(FormatError):
        issue({}, signer=Signer(KEY), issuer=ISSUER, now=NOW)


async def test_own_token_is_accepted() -> None:
    claims = await trusting(KEY).verify(token(), NOW)
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    assert tee_public_key(claims) == JWK
    other = SigningKey.generate()
    for issuers in ([Keys(other), Keys(KEY)], [Keys(KEY), Keys(other)], [Keys(other, KEY)]):
        assert await TokenVerifier(issuers).verify(token(), NOW) == claims


async def test_leeway_of_a_minute() -> None:
    verifier = trusting(KEY)
    await verifier.verify(token(), NOW + dt.timedelta(seconds=359))
    with pytest.raises(EvidenceError, match="expired"):
        await verifier.verify(token(), NOW + dt.timedelta(seconds=360))


def test_trust_in_nobody_is_refused() -> None:
    with pytest.raises(ConfigError):
        TokenVerifier([])


async def refused(text: str) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        await trusting(KEY).verify(UnverifiedToken(text), NOW)
    assert caught.value.findings
    return caught.value


async def test_forged_with_another_key_shown_in_the_header() -> None:
    await refused(token(SigningKey.generate()))


async def test_forged_with_our_key_shown_in_the_header() -> None:
    forger = SigningKey.generate()
    await refused(forger.sign({"jwk": KEY.public_jwk()}, body(token())))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "NONE"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"alg": "ES384"},
        {"alg": None},
        {},
        {"alg": "ES256", "crit": ["x"], "x": 1},
    ],
)
async def test_other_headers(header: Any) -> None:
    _, claims, signature = token().split(".")
    await refused(f"{part(header)}.{claims}.{signature}")
    await refused(f"{part(header)}.{claims}.")


async def test_changed_claims() -> None:
    head, _, signature = token().split(".")
    claims = body(token())
    claims["submods"]["cpu0"]["ear.status"] = "affirming!"
    await refused(f"{head}.{part(claims)}.{signature}")


async def test_missing_times() -> None:
    claims = body(token())
    wrong: list[Any] = [None, "9999999999", True, [], {}]
    for exp in wrong:
        await refused(KEY.sign({}, {**claims, "exp": exp}))
    del claims["exp"]
    await refused(KEY.sign({}, claims))
    await refused(KEY.sign({}, {**claims, "exp": 9e9, "nbf": 9e9}))


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é", "x" * 3_000_000, "e30.e30.e30"])
async def test_no_token_at_all(text: str) -> None:
    await refused(text)


@pytest.mark.parametrize("path", TEE_KEY_PATHS)
def test_places_of_the_tee_key(path: str) -> None:
    claims: Any = JWK
    for name in reversed(path.split("/")[1:]):
        claims = {name: claims}
    assert tee_public_key(VerifiedClaims(claims)) == JWK


def test_order_and_extra_places() -> None:
    claims = VerifiedClaims({"tee-pubkey": {"a": 1}, "a/b": {"c~d": {"b": 2}}})
    assert tee_public_key(claims) == {"a": 1}
    assert tee_public_key(claims, ["/a~1b/c~0d"]) == {"b": 2}


@pytest.mark.parametrize(
    "claims", [{}, {"tee-pubkey": None}, {"tee-pubkey": "x"}, {"tee-pubkey": []}, {"submods": []}]
)
def test_no_tee_key(claims: Any) -> None:
    with pytest.raises(EvidenceError):
        tee_public_key(VerifiedClaims(claims))
