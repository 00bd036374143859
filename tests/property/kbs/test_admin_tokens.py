# SPDX-License-Identifier: Apache-2.0
"""Whatever arrives as an administrator's token: admitted as signed, or refused; never more."""

import asyncio
import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OKPKey, RSAKey

from cocos.clients.key_sets import KeySet
from cocos.crypto.jwk import parse_set
from cocos.errors import AccessDeniedError, AuthenticationError, ConfigError, FormatError
from cocos.kbs.admin.gate import AccessList, AdminRequest, Identity
from cocos.kbs.admin.identity_providers import BearerTokens, IdentityProvider

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEYS: dict[str, Any] = {
    "ES256": ECKey.generate_key("P-256", {"kid": "a"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "b"}),
    "PS256": RSAKey.generate_key(2048, {"kid": "c"}),
    "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "d"}),
}
CLAIMS = {"iss": "i", "sub": "s", "aud": "kbs", "role": "admin", "exp": NOW.timestamp() + 600}
TOKENS = [jose.encode({"alg": alg}, CLAIMS, key, [alg]) for alg, key in KEYS.items()]

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
HEADERS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"alg": st.sampled_from([*KEYS, "none", "NONE", "HS256", "RS256", "EdDSA"]) | JSON},
    optional={
        "kid": st.sampled_from("abcdx") | JSON,
        "jwk": st.sampled_from([key.as_dict(private=False) for key in KEYS.values()]) | JSON,
        "typ": JSON,
        "crit": JSON,
    },
)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> BearerTokens:
    file: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in KEYS.values()]}))
    keys = KeySet(str(file), parse_set, clock=lambda: NOW)
    access = AccessList([("admin", "^/kbs/.+$")])
    return BearerTokens([IdentityProvider((keys,), "i", "kbs")], access, clock=lambda: NOW)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def admitted(gate: BearerTokens, header: str, path: str = "/kbs/v0/resource-policy") -> bool:
    try:
        name = asyncio.run(gate.admit(AdminRequest(header, path)))
    except (AuthenticationError, AccessDeniedError):
        return False
    assert name.isprintable()
    return True


def test_the_tokens_themselves_are_good(gate: BearerTokens) -> None:
    assert all(admitted(gate, f"Bearer {token}") for token in TOKENS)


@given(st.text() | st.text(alphabet="abcABC019-_=.").map("Bearer {}".format))
def test_any_header(gate: BearerTokens, header: str) -> None:
    assert not admitted(gate, header)


@given(st.sampled_from(TOKENS), st.data())
def test_a_changed_token(gate: BearerTokens, token: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(token) - 1))
    changed = data.draw(st.sampled_from("AZaz09-_.= "))
    forged = token[:place] + changed + token[place + 1 :]
    if forged.strip() != token:
        assert not admitted(gate, f"Bearer {forged}")


@given(st.sampled_from(TOKENS), HEADERS, JSON)
def test_another_header_or_other_claims_over_a_real_signature(
    gate: BearerTokens, token: str, header: Any, claims: Any
) -> None:
    true_header, true_claims, signature = token.split(".")
    for forged in (
        f"{part(header)}.{true_claims}.{signature}",
        f"{part(header)}.{part(CLAIMS)}.",
        f"{true_header}.{part(claims)}.{signature}",
    ):
        if forged != token:
            assert not admitted(gate, f"Bearer {forged}")


@given(st.dictionaries(st.sampled_from([*CLAIMS, "nbf"]), JSON, min_size=1))
def test_any_claims_signed_by_the_provider(gate: BearerTokens, changed: dict[str, Any]) -> None:
    """A provider may sign what it likes; only what we asked for gets in."""
    claims = {**CLAIMS, **changed}
    try:
        token = jose.encode({"alg": "ES256"}, claims, KEYS["ES256"])
    except ValueError:
        return  # the library refuses to sign it
    roles = claims["role"] if isinstance(claims["role"], list) else [claims["role"]]
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if admitted(gate, f"Bearer {token}"):
        assert claims["iss"] == "i"
        assert "kbs" in audience
        assert "admin" in roles
        assert claims["exp"] > NOW.timestamp() - 60


@given(st.text(max_size=20), st.text(max_size=40))
def test_any_rule_and_path(pattern: str, path: str) -> None:
    try:
        access = AccessList([("admin", f"^/kbs{pattern}$")])
    except ConfigError:
        return
    try:
        access.check(Identity("x", ("admin",)), path)
    except AccessDeniedError:
        return
    assert path.startswith("/kbs") or "|" in pattern


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps({"keys": value}).encode()))
def test_any_set_of_keys(data: bytes) -> None:
    try:
        keys = parse_set(data, "the set")
    except FormatError:
        return
    assert all(key.algorithms for key in keys)


MEMBERS = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid", "key_ops"]),
    st.sampled_from(["EC", "RSA", "OKP", "P-256", "Ed25519", "AQAB", "sig", "", "AA"]) | JSON,
)


@given(st.lists(MEMBERS, max_size=3))
def test_any_keys(keys: list[dict[str, Any]]) -> None:
    parse_set(json.dumps({"keys": keys}).encode(), "the set")
