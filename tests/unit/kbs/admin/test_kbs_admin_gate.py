# SPDX-License-Identifier: Apache-2.0
import base64
import datetime as dt
import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from cocos.crypto import admin_jwt
from cocos.errors import AccessDeniedError, AuthenticationError, ConfigError
from cocos.kbs.admin.gate import (
    AccessList,
    AdminRequest,
    DenyAll,
    Identity,
    InsecureAllowAll,
    SignedTokens,
)

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def key_pair() -> tuple[bytes, bytes]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


PRIVATE, PUBLIC = key_pair()
OTHER_PRIVATE, OTHER_PUBLIC = key_pair()


@pytest.fixture
def gate() -> SignedTokens:
    return SignedTokens({"alice": PUBLIC}, clock=lambda: NOW)


def request(authorization: str | None, path: str = "/kbs/v0/resource/a/b/c") -> AdminRequest:
    return AdminRequest(authorization, path)


def b64(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims() -> dict[str, object]:
    return {"iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 3600, "role": "admin"}


async def test_a_signed_token_is_admitted_under_its_key_s_name(gate: SignedTokens) -> None:
    assert await gate.admit(request(f"Bearer {admin_jwt.mint(PRIVATE, now=NOW)}")) == "alice"
    assert await gate.admit(request(f"bearer  {admin_jwt.mint(PRIVATE, now=NOW)} ")) == "alice"


async def test_the_key_that_signed_decides_the_name() -> None:
    gate = SignedTokens({"alice": PUBLIC, "bob": OTHER_PUBLIC}, clock=lambda: NOW)
    assert await gate.admit(request(f"Bearer {admin_jwt.mint(OTHER_PRIVATE, now=NOW)}")) == "bob"
    with pytest.raises(AuthenticationError, match="with any of the issuers"):
        await gate.admit(request(f"Bearer {admin_jwt.mint(key_pair()[0], now=NOW)}"))


@pytest.mark.parametrize("token", ["e30=", "e30", "e30K", "eyJyb2xlIjoiYWRtaW4ifQ=="])
async def test_unsigned_json_gets_a_sentence_that_says_what_to_do(
    gate: SignedTokens, token: str
) -> None:
    with pytest.raises(AuthenticationError, match="nobody signed") as caught:
        await gate.admit(request(f"Bearer {token}"))
    assert caught.value.hint is not None
    assert "kbs-client admin-token" in caught.value.hint
    assert "--insecure-api" in caught.value.hint


def hs256_with_the_public_key() -> str:
    """The classic confusion: the public key as the secret of a MAC."""
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT'})}.{b64(claims())}"
    return f"{signed}.{b64(hmac.digest(PUBLIC, signed.encode(), hashlib.sha256))}"


def es256() -> str:
    signed = f"{b64({'alg': 'ES256', 'typ': 'JWT'})}.{b64(claims())}"
    key = ec.generate_private_key(ec.SECP256R1())
    return f"{signed}.{b64(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))}"


def tampered() -> str:
    header, _, signature = admin_jwt.mint(PRIVATE, now=NOW).split(".")
    return f"{header}.{b64({**claims(), 'role': 'root'})}.{signature}"


def without_expiry() -> str:
    key = serialization.load_pem_private_key(PRIVATE, None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    signed = f"{b64({'alg': 'EdDSA'})}.{b64({'role': 'admin'})}"
    return f"{signed}.{b64(key.sign(signed.encode()))}"


FORGED = {
    "another key": admin_jwt.mint(OTHER_PRIVATE, now=NOW),
    "expired": admin_jwt.mint(PRIVATE, now=NOW - dt.timedelta(hours=3)),
    "alg none": f"{b64({'alg': 'none'})}.{b64(claims())}.",
    "alg none, signed": f"{b64({'alg': 'None'})}.{b64(claims())}.{b64(b'x' * 64)}",
    "HS256": hs256_with_the_public_key(),
    "ES256": es256(),
    "tampered": tampered(),
    "no expiry": without_expiry(),
    "no JWT": "abc",
    "two parts": "a.b",
    "not ASCII": "\u00e4.\u00e4.\u00e4",
    "empty parts": "..",
    "huge": "a" * 100_000,
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_tokens_are_refused(gate: SignedTokens, name: str) -> None:
    with pytest.raises(AuthenticationError):
        await gate.admit(request(f"Bearer {FORGED[name]}"))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "e30="])
async def test_no_token_is_refused(gate: SignedTokens, header: str | None) -> None:
    with pytest.raises(AuthenticationError, match="bearer token"):
        await gate.admit(request(header))


async def test_a_gate_without_keys_admits_nobody() -> None:
    with pytest.raises(AuthenticationError):
        await SignedTokens({}, clock=lambda: NOW).admit(
            request(f"Bearer {admin_jwt.mint(PRIVATE, now=NOW)}")
        )


def test_a_key_of_another_kind_is_refused_at_start() -> None:
    with pytest.raises(ConfigError):
        SignedTokens({"alice": PRIVATE}, clock=lambda: NOW)


async def test_the_extremes() -> None:
    with pytest.raises(AccessDeniedError, match="DenyAll authorization_mode is enabled"):
        await DenyAll().admit(request(f"Bearer {admin_jwt.mint(PRIVATE, now=NOW)}"))
    assert "insecure" in await InsecureAllowAll().admit(request(None))


async def test_personas_with_roles_reach_what_their_role_allows() -> None:
    gate = SignedTokens(
        {"alice": PUBLIC, "bob": OTHER_PUBLIC},
        clock=lambda: NOW,
        access=AccessList([("alice", "^/kbs/v0/resource/a/.+$")]),
    )
    alice = f"Bearer {admin_jwt.mint(PRIVATE, now=NOW, claims={'role': 'bob'})}"
    assert await gate.admit(request(alice)) == "alice"
    for path in ("/kbs/v0/resource/b/b/c", "/kbs/v0/resource-policy", "/kbs/v0/resource/a/"):
        with pytest.raises(AccessDeniedError, match="Role alice not allowed"):
            await gate.admit(request(alice, path))
    with pytest.raises(AccessDeniedError, match="Role bob not allowed"):
        await gate.admit(request(f"Bearer {admin_jwt.mint(OTHER_PRIVATE, now=NOW)}"))
    with pytest.raises(AuthenticationError):
        await gate.admit(request(f"Bearer {admin_jwt.mint(key_pair()[0], now=NOW)}"))


def test_the_whole_path_must_match() -> None:
    access = AccessList([("r", "^/kbs/v0/reference-value/[a-z]+$"), ("r", "^/kbs/v0/a|/kbs/v0/b$")])
    someone = Identity("someone", ("r", "s"))
    for path in ("/kbs/v0/reference-value/svn", "/kbs/v0/a", "/kbs/v0/b"):
        access.check(someone, path)
    for path in (
        "/kbs/v0/reference-value/svn\n",
        "/kbs/v0/reference-value/svn/x",
        "/kbs/v0/reference-value/",
        "/kbs/v0/about",
        "/x/kbs/v0/b",
    ):
        with pytest.raises(AccessDeniedError, match="not allowed") as caught:
            access.check(someone, path)
        assert caught.value.findings[0].actual == "r, s"
    for identity in (Identity("x", ()), Identity("x", ("R",)), Identity("x", ("r ",))):
        with pytest.raises(AccessDeniedError):
            access.check(identity, "/kbs/v0/a")
    with pytest.raises(AccessDeniedError):
        AccessList([]).check(someone, "/kbs/v0/a")


@pytest.mark.parametrize(
    "pattern",
    ["", ".*", "^.*$", "/kbs/.+", "^/kbs/.+", "/kbs/.+$", "^/kbs/($", "^/kbs/[[:alpha:]]+$",
     "^/kbs/a{99999999999999999999}$", "^/kbs\\z$"],
)  # fmt: skip
def test_rules_that_are_refused_at_start(pattern: str) -> None:
    with pytest.raises(ConfigError, match="role ops"):
        AccessList([("ops", pattern)])
