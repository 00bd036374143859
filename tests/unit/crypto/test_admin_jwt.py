# SPDX-License-Identifier: Apache-2.0
"""Administrators' tokens: what is made, for how long, and with which keys."""

import datetime as dt
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519

from cocos.crypto import admin_jwt
from cocos.errors import AuthenticationError, ConfigError, FormatError

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
KEY = ed25519.Ed25519PrivateKey.generate()
PLAIN = serialization.NoEncryption()
AnyKey: TypeAlias = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey | ec.EllipticCurvePrivateKey


def private(key: AnyKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, PLAIN)


def public(key: AnyKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


LOCKED = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.BestAvailableEncryption(b"x"),
)
OTHERS: tuple[AnyKey, ...] = (
    ec.generate_private_key(ec.SECP256R1()),
    ed448.Ed448PrivateKey.generate(),
)


def test_a_token_says_what_it_is_told_and_for_how_long() -> None:
    token = admin_jwt.mint(private(KEY), now=NOW, claims={"role": "reader", "iat": 1, "exp": 1e12})
    issued = int(NOW.timestamp())
    expected = {"role": "reader", "iat": issued, "exp": issued + 7200}
    assert admin_jwt.verify(token, public(KEY), NOW) == expected
    token = admin_jwt.mint(private(KEY), now=NOW)
    assert admin_jwt.verify(token, public(KEY), NOW) == {
        "role": "admin",
        "iat": issued,
        "exp": issued + 7200,
    }


@pytest.mark.parametrize(("seconds", "valid"), [(-1, False), (0, False), (0.9, False), (1, True)])
def test_a_token_is_valid_for_a_second_at_least(seconds: float, *, valid: bool) -> None:
    lifetime = dt.timedelta(seconds=seconds)
    if valid:
        token = admin_jwt.mint(private(KEY), now=NOW, lifetime=lifetime)
        assert admin_jwt.verify(token, public(KEY), NOW)["exp"] == int(NOW.timestamp()) + 1
        return
    with pytest.raises(FormatError, match="at least a second"):
        admin_jwt.mint(private(KEY), now=NOW, lifetime=lifetime)


@pytest.mark.parametrize("pem", [b"", b"nonsense", LOCKED, public(KEY)])
def test_what_is_no_private_key(pem: bytes) -> None:
    with pytest.raises(ConfigError, match="not an unencrypted key in PEM"):
        admin_jwt.mint(pem, now=NOW)


@pytest.mark.parametrize("pem", [b"", b"nonsense", private(KEY)])
def test_what_is_no_public_key(pem: bytes) -> None:
    with pytest.raises(ConfigError, match="not a public key in PEM"):
        admin_jwt.load_public_key(pem)


@pytest.mark.parametrize("key", OTHERS)
def test_keys_of_another_kind(key: AnyKey) -> None:
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        admin_jwt.mint(private(key), now=NOW)
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        admin_jwt.load_public_key(public(key))


@pytest.mark.parametrize("token", ["", "a.b", "..", "\u00e4.\u00e4.\u00e4"])
def test_what_is_no_token_says_how_to_make_one(token: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        admin_jwt.verify(token, public(KEY), NOW)
    assert caught.value.hint == "kbs-client admin-token makes one"


def test_a_token_ends() -> None:
    token = admin_jwt.mint(private(KEY), now=NOW)
    for late, admitted in ((7200 + 30, True), (7200 + 90, False)):
        when = NOW + dt.timedelta(seconds=late)
        if admitted:
            admin_jwt.verify(token, public(KEY), when)
            continue
        with pytest.raises(AuthenticationError):
            admin_jwt.verify(token, public(KEY), when)
