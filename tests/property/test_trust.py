# SPDX-License-Identifier: Apache-2.0
"""Properties of keys, tokens, resource names, policies and evidence."""

import asyncio
import contextlib
import datetime as dt
import json
from typing import Any

import pytest
from _tokens import trusting
from _verified import verified
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from cocos._types import UnverifiedToken
from cocos.crypto import admin_jwt, base64url, jwe, sealed, signing
from cocos.crypto.signing import SigningKey
from cocos.crypto.tee_key import TeeKeyPair
from cocos.errors import CocosError, EvidenceError, FormatError
from cocos.policy import defaults
from cocos.policy.appraisal import Status, appraise, tier
from cocos.policy.documents import BaseDocuments
from cocos.policy.engine import Policy
from cocos.tokens.check import tee_public_key
from cocos.tokens.ear import Issuer, Submodule, issue
from cocos.tokens.signer import Signer
from cocos.verifiers import Expected
from cocos.verifiers.sample import InsecureSampleVerifier
from cocos.wire.kbs.protocol import ResourcePath, ResourceUri, Tee, report_data

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
PAIR = TeeKeyPair.generate()
KEY = SigningKey.generate()
RESOURCE_POLICY = Policy(defaults.text(defaults.RESOURCE))
ECHO = Policy(
    "package policy\nfrom_input := input.a\nfrom_data := data.a\nsame if input.a == data.a"
)
CPU_POLICY = Policy(defaults.text("default_cpu"))


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.text(max_size=10)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )


scalars = st.none() | st.booleans() | st.text(max_size=20)
json_values = nested(scalars | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
# Other integers are refused, and the engine writes larger floats without a fraction as integers.
exact_values = nested(
    scalars | st.integers(-(2**63), 2**64 - 1) | st.floats(-(2**53), 2**53, allow_nan=False)
)
b64_text = st.text("ABCabc012-_=", max_size=60) | st.text(max_size=10)


def objects(names: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of the members that a parser looks for."""
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=5), values, max_size=8)


# --- keys and JWE ---


@given(
    objects(
        ["kty", "crv", "alg", "x", "y", "n", "e"],
        st.sampled_from(["EC", "RSA", "P-256", "P-521", "ECDH-ES+A256KW", "RSA-OAEP-256", "AQAB"])
        | b64_text
        | json_values,
    )
)
def test_any_jwk_is_accepted_or_a_format_error(jwk: Any) -> None:
    try:
        jwe.check_public_jwk(jwk)
    except FormatError:
        return
    jwe.encrypt(b"x", jwk)


@given(st.sampled_from(["x", "y"]), st.binary(min_size=32, max_size=32))
def test_points_off_the_curve(member: str, value: bytes) -> None:
    jwk = PAIR.public_jwk()
    changed = {**jwk, member: base64url.encode(value)}
    assume(changed != jwk)
    try:
        jwe.check_public_jwk(changed)
    except FormatError:
        return
    # The other point with this x is on the curve as well.
    assert member == "y"


@given(
    objects(
        ["protected", "encrypted_key", "iv", "ciphertext", "tag", "aad"], b64_text | json_values
    )
)
def test_any_response_decrypts_or_is_our_error(response: Any) -> None:
    with pytest.raises(CocosError):
        PAIR.decrypt(response)


@given(objects(["alg", "enc", "epk", "apu", "zip", "crit"], json_values | b64_text))
def test_any_protected_header(header: Any) -> None:
    response = jwe.encrypt(b"x", PAIR.public_jwk())
    text = base64url.encode(json.dumps(header).encode())
    with pytest.raises(CocosError):
        PAIR.decrypt({**response, "protected": text})


@given(st.binary(max_size=2000))
def test_resources_survive(plaintext: bytes) -> None:
    assert PAIR.decrypt(jwe.encrypt(plaintext, PAIR.public_jwk())) == plaintext


@given(st.data())
def test_a_changed_response_never_decrypts(data: st.DataObject) -> None:
    response = jwe.encrypt(b"plaintext", PAIR.public_jwk())
    member = data.draw(st.sampled_from(sorted(response)))
    place = data.draw(st.integers(0, len(response[member]) - 1))
    letter = data.draw(st.sampled_from("ABCDabcd0123-_=."))
    changed = response[member][:place] + letter + response[member][place + 1 :]
    assume(changed != response[member])
    with pytest.raises(CocosError):
        PAIR.decrypt({**response, member: changed})


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_sealed_data(data: bytes) -> None:
    with pytest.raises(CocosError):
        sealed.open_sealed(data, PAIR.pem())


@given(st.binary(max_size=200))
def test_any_key_file(data: bytes) -> None:
    for load in (TeeKeyPair.from_pem, SigningKey.from_pem, admin_jwt.load_public_key):
        with pytest.raises(CocosError):
            load(data)
    with pytest.raises(FormatError):
        sealed.check_recipient(data)


# --- tokens ---


def token() -> UnverifiedToken:
    verdict = appraise({"hardware": 2})
    evidence = {"sample": {}, "runtime_data_claims": {"tee-pubkey": PAIR.public_jwk()}}
    issuer = Issuer("i", "d", "b", "p", dt.timedelta(minutes=5))
    submodules = {"cpu0": Submodule(verdict, "default", evidence)}
    return issue(submodules, signer=Signer(KEY), issuer=issuer, now=NOW)


TOKEN = token()
VERIFIER = trusting(KEY)


async def test_the_unchanged_token_is_accepted() -> None:
    assert tee_public_key(await VERIFIER.verify(TOKEN, NOW)) == PAIR.public_jwk()


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="utf-8"))
async def test_every_changed_letter_is_refused(place: int, letter: str) -> None:
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]
    assume(changed != TOKEN)
    with pytest.raises(EvidenceError):
        await VERIFIER.verify(UnverifiedToken(changed), NOW)


@given(st.integers(0, len(TOKEN)), st.integers(0, len(TOKEN)), st.text(max_size=5))
async def test_every_cut_and_insertion_is_refused(start: int, end: int, middle: str) -> None:
    changed = TOKEN[:start] + middle + TOKEN[end:]
    assume(changed != TOKEN)
    with pytest.raises(EvidenceError):
        await VERIFIER.verify(UnverifiedToken(changed), NOW)


@given(json_values, json_values)
@example({"alg": "ES256"}, {"exp": 9e9})
async def test_any_unsigned_token_is_refused(header: Any, claims: Any) -> None:
    parts = [base64url.encode(json.dumps(part).encode()) for part in (header, claims)]
    for signature in ("", "AAAA", "A" * 86):
        with pytest.raises(EvidenceError):
            await VERIFIER.verify(UnverifiedToken(".".join([*parts, signature])), NOW)


@given(st.dictionaries(st.sampled_from(["exp", "nbf", "iat"]), json_values))
async def test_signed_tokens_hold_only_within_their_time(claims: Any) -> None:
    signed = UnverifiedToken(KEY.sign({}, claims))
    try:
        await VERIFIER.verify(signed, NOW)
    except EvidenceError:
        return
    assert claims["exp"] > NOW.timestamp() - 60
    assert claims.get("nbf", 0) <= NOW.timestamp() + 60


@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_claims_survive_signing(claims: Any) -> None:
    try:
        signed = KEY.sign({}, claims)
    except FormatError:
        return
    assert signing.verify(signed, KEY.public_jwk()) == claims


@given(json_values.filter(lambda value: isinstance(value, dict)))
def test_tee_key_of_any_claims(claims: Any) -> None:
    with contextlib.suppress(EvidenceError):
        assert isinstance(tee_public_key(claims), dict)


# --- resource names ---

segments = st.from_regex(r"[A-Za-z0-9_\-][A-Za-z0-9_\-.]{0,20}", fullmatch=True)


@given(segments, segments, segments)
def test_resource_names_survive(repository: str, kind: str, tag: str) -> None:
    path = ResourcePath(repository, kind, tag)
    assert ResourcePath.parse(str(path)) == path
    uri = ResourceUri.parse(path.uri)
    assert uri.path == str(path)
    assert str(uri) == path.uri


@given(st.text(max_size=60) | st.text("kbs:/+.a?#%&=[]@", max_size=30).map("kbs:///".__add__))
def test_any_resource_name_is_accepted_whole_or_refused(text: str) -> None:
    try:
        uri = ResourceUri.parse(text)
    except FormatError:
        pass
    else:
        assert ResourceUri.parse(str(uri)) == uri
        assert ".." not in uri.path.split("/")
    with contextlib.suppress(FormatError):
        assert str(ResourcePath.parse(text)) == text


# --- policies ---

statuses = st.sampled_from([*Status]) | exact_values
submods = st.dictionaries(
    st.sampled_from(["cpu0", "gpu0", "gpu1"]) | st.text(max_size=5),
    st.fixed_dictionaries({}, optional={"ear.status": statuses, "other": exact_values})
    | exact_values,
    max_size=4,
)


@given(st.fixed_dictionaries({}, optional={"submods": submods | exact_values, "x": exact_values}))
@settings(deadline=None)
def test_default_policy_allows_only_what_is_affirming_throughout(claims: Any) -> None:
    wanted = {"plugin": "resource"}
    verdict = RESOURCE_POLICY.evaluate(["allow"], claims, request=wanted)["allow"]
    parts = claims.get("submods")
    good = (
        isinstance(parts, dict)
        and bool(parts)
        and all(
            isinstance(part, dict) and part.get("ear.status") == "affirming"
            for part in parts.values()
        )
    )
    assert verdict is good


@given(st.dictionaries(st.sampled_from([*Tee]) | st.text(max_size=5), exact_values, max_size=4))
@settings(deadline=None)
def test_default_attestation_policy_affirms_nothing_that_nobody_allowed(document: Any) -> None:
    for operator in ({}, {"insecure_allow_sample": False}, {"insecure_allow_sample": "yes"}):
        base = BaseDocuments.of(operator=operator)
        said = CPU_POLICY.evaluate(["trust_claims"], document, base=base)
        assert appraise(*said.values()).status is Status.CONTRAINDICATED


@given(exact_values)
@settings(deadline=None)
def test_values_reach_policies_unchanged(value: Any) -> None:
    rules = ["from_input", "from_data", "same"]
    said = ECHO.evaluate(rules, {"a": value}, base=BaseDocuments.of(a=value))
    assert said == {"from_input": value, "from_data": value, "same": True}


@given(json_values, json_values)
def test_any_trust_claims_become_a_verdict(claims: Any, extensions: Any) -> None:
    verdict = appraise(claims, extensions)
    assert verdict.vector
    if verdict.status is Status.AFFIRMING:
        assert isinstance(claims, dict)
        assert any(tier(value) is Status.AFFIRMING for value in claims.values())
        assert not verdict.findings


@given(st.integers(-128, 127))
def test_every_value_has_one_tier(value: int) -> None:
    assert appraise({"hardware": value}).status is tier(value)


# --- evidence ---


@given(objects(["svn", "report_data"], b64_text | json_values) | json_values)
def test_any_sample_evidence_is_refused(evidence: Any) -> None:
    expected = Expected(report_data({"nonce": "n"}))
    with pytest.raises(EvidenceError):
        asyncio.run(verified(InsecureSampleVerifier(), evidence, expected))
