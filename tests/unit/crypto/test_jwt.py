# SPDX-License-Identifier: Apache-2.0
"""Signed tokens: of the administrator (EdDSA) and of the attestation service (ES256)."""

import base64
import datetime as dt
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OKPKey, RSAKey

from cocos.crypto import admin_jwt, jwt, signing
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, ConfigError, FormatError

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


def halves(key: Any) -> tuple[bytes, bytes]:
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


PRIVATE, PUBLIC = halves(ed25519.Ed25519PrivateKey.generate())
EC_PRIVATE, EC_PUBLIC = halves(ec.generate_private_key(ec.SECP256R1()))
RSA_PRIVATE, _ = halves(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def raw_token(header: object, claims: object) -> str:
    """Sign arbitrary header and claims with the admin's key."""
    key = serialization.load_pem_private_key(PRIVATE, None)
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{part(key.sign(signed.encode()))}"


EXP = int(NOW.timestamp()) + 100


def test_admin_round_trip() -> None:
    token = admin_jwt.mint(PRIVATE, now=NOW, claims={"role": "admin"})
    issued = int(NOW.timestamp())
    assert admin_jwt.verify(token, PUBLIC, NOW) == {
        "role": "admin",
        "iat": issued,
        "exp": issued + 7200,
    }
    assert jwt.header_of(token) == {"typ": "JWT", "alg": "EdDSA"}


def test_times_of_mint_cannot_be_overridden() -> None:
    token = admin_jwt.mint(PRIVATE, now=NOW, claims={"exp": 9e12})
    assert admin_jwt.verify(token, PUBLIC, NOW)["exp"] == int(NOW.timestamp()) + 7200


def test_expiry_and_leeway() -> None:
    token = admin_jwt.mint(PRIVATE, now=NOW, lifetime=dt.timedelta(minutes=1))
    admin_jwt.verify(token, PUBLIC, NOW + dt.timedelta(seconds=119))
    with pytest.raises(AuthenticationError, match="expired"):
        admin_jwt.verify(token, PUBLIC, NOW + dt.timedelta(seconds=120))
    for lifetime in (0, -5):
        with pytest.raises(FormatError):
            admin_jwt.mint(PRIVATE, now=NOW, lifetime=dt.timedelta(seconds=lifetime))


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"exp": None},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": []},
        b'{"exp":NaN}',
        b'{"exp":Infinity}',
        b'{"exp":1e999}',
        {"exp": EXP, "nbf": EXP},
        {"exp": EXP, "nbf": None},
        {"exp": 0},
        [],
        b"nonsense",
        b"\xff",
        b"[" * 5000,
    ],
)
def test_claims_that_are_refused(claims: object) -> None:
    with pytest.raises(AuthenticationError):
        admin_jwt.verify(raw_token({"alg": "EdDSA"}, claims), PUBLIC, NOW)


def test_huge_integer_times() -> None:
    token = raw_token({"alg": "EdDSA"}, {"exp": 10**400})
    assert admin_jwt.verify(token, PUBLIC, NOW)["exp"] == 10**400


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": None},
        {"alg": ["EdDSA"]},
        {"alg": "EdDSA", "crit": ["exp"]},
        {"alg": "EdDSA", "b64": False},
        {"alg": "EdDSA", "b64": 1},
        {"alg": "EdDSA", "b64": None},
        {"alg": "EdDSA", "crit": ["b64"]},
        {"alg": "EdDSA", "crit": [], "b64": True},
        {"alg": "EdDSA", "crit": "b64", "b64": True},
        {"alg": "EdDSA", "crit": ["b64", "exp"], "b64": True},
        {"alg": "EdDSA", "crit": ["b64"], "b64": False},
        ["alg"],
        "alg",
        1,
        b"nonsense",
    ],
)
def test_headers_that_are_refused(header: object) -> None:
    with pytest.raises(AuthenticationError):
        admin_jwt.verify(raw_token(header, {"exp": EXP}), PUBLIC, NOW)


@pytest.mark.parametrize("more", [{"b64": True}, {"b64": True, "crit": ["b64"]}])
def test_a_payload_in_base64url_as_upstreams_secrets_name_it(more: dict[str, object]) -> None:
    token = raw_token({"alg": "EdDSA", **more}, {"exp": EXP})
    assert admin_jwt.verify(token, PUBLIC, NOW) == {"exp": EXP}


def test_alg_none_without_signature() -> None:
    for header in ({"alg": "none"}, {"alg": "EdDSA"}):
        with pytest.raises(AuthenticationError):
            admin_jwt.verify(f"{part(header)}.{part({'exp': EXP})}.", PUBLIC, NOW)


def test_public_key_as_hmac_secret() -> None:
    import hashlib  # noqa: PLC0415 - only this attack needs them
    import hmac  # noqa: PLC0415

    signed = f"{part({'alg': 'HS256'})}.{part({'exp': EXP})}"
    mac = hmac.digest(PUBLIC, signed.encode(), hashlib.sha256)
    with pytest.raises(AuthenticationError):
        admin_jwt.verify(f"{signed}.{part(mac)}", PUBLIC, NOW)


def test_other_key_and_tampering() -> None:
    other, _ = halves(ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(AuthenticationError, match="not signed by"):
        admin_jwt.verify(admin_jwt.mint(other, now=NOW), PUBLIC, NOW)
    token = admin_jwt.mint(PRIVATE, now=NOW)
    header, _, signature = token.split(".")
    forged = f"{header}.{part({'exp': EXP, 'role': 'admin'})}.{signature}"
    with pytest.raises(AuthenticationError):
        admin_jwt.verify(forged, PUBLIC, NOW)


@pytest.mark.parametrize(
    "token", ["", "e30=", "e30K", "a.b", "a.b.c.d", "..", "é.é.é", "x" * 2_000_000]
)
def test_not_a_token(token: str) -> None:
    # "e30=" is what the original guide sends: base64 of {}.
    with pytest.raises(AuthenticationError) as caught:
        admin_jwt.verify(token, PUBLIC, NOW)
    assert "admin-token" in (caught.value.hint or "")


def test_wrong_kinds_of_key() -> None:
    for private in (EC_PRIVATE, RSA_PRIVATE, PUBLIC, b""):
        with pytest.raises(ConfigError):
            admin_jwt.mint(private, now=NOW)
    for public in (EC_PUBLIC, PRIVATE, b""):
        with pytest.raises(ConfigError):
            admin_jwt.load_public_key(public)


def test_independent_library_agrees_on_eddsa() -> None:
    token = admin_jwt.mint(PRIVATE, now=NOW, claims={"role": "admin"})
    with pytest.warns(match="RFC 9864"):
        claims = jose.decode(token, OKPKey.import_key(PUBLIC), algorithms=["EdDSA"]).claims
    assert claims["role"] == "admin"
    with pytest.warns(match="RFC 9864"):
        theirs = jose.encode(
            {"alg": "EdDSA"}, {"exp": EXP}, OKPKey.import_key(PRIVATE), algorithms=["EdDSA"]
        )
    assert admin_jwt.verify(theirs, PUBLIC, NOW) == {"exp": EXP}


def test_signing_key() -> None:
    key = SigningKey.generate()
    jwk = key.public_jwk()
    assert list(jwk) == ["alg", "kty", "crv", "x", "y"]
    assert SigningKey.from_pem(key.pem()).public_jwk() == jwk
    token = key.sign({"jwk": jwk}, {"a": "ä"})
    assert signing.verify(token, jwk) == {"a": "ä"}
    assert list(jwt.header_of(token)) == ["typ", "alg", "jwk"]
    opened = jose.decode(token, ECKey.import_key(key.pem()), algorithms=["ES256"])
    assert opened.claims == {"a": "ä"}
    theirs = jose.encode({"alg": "ES256"}, {"a": 1}, ECKey.import_key(key.pem()))
    assert signing.verify(theirs, jwk) == {"a": 1}


def test_signing_key_attacks() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    jwk = key.public_jwk()
    with pytest.raises(AuthenticationError):
        signing.verify(other.sign({}, {}), jwk)
    rs256 = jose.encode({"alg": "RS256"}, {}, RSAKey.import_key(RSA_PRIVATE))
    with pytest.raises(AuthenticationError):
        signing.verify(rs256, jwk)
    head, body, signature = key.sign({}, {}).split(".")
    for bad in ("", "A" * 8, "A" * 86, signature[:-4], part(b"\xff" * 64)):
        with pytest.raises((AuthenticationError, FormatError)):
            signing.verify(f"{head}.{body}.{bad}", jwk)
    for change in ({"crv": "P-384"}, {"alg": "HS256"}, {"kty": "oct"}, {"x": "AA"}):
        with pytest.raises(FormatError):
            signing.verify(key.sign({}, {}), {**jwk, **change})
    for claims in ({"a": float("nan")}, {"a": b""}, {"a": "\ud800"}):
        with pytest.raises(FormatError):
            key.sign({}, claims)


def test_signing_key_files() -> None:
    p384, _ = halves(ec.generate_private_key(ec.SECP384R1()))
    for pem in (b"", PRIVATE, RSA_PRIVATE, EC_PUBLIC, p384):
        with pytest.raises(ConfigError):
            SigningKey.from_pem(pem)
