# SPDX-License-Identifier: Apache-2.0
"""Signatures that bring their key, which counts by its thumbprint only."""

from typing import Any

import pytest
from joserfc.jwk import ECKey

from cocos.crypto import base64url, detached
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, FormatError
from cocos.wire.json import encode

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
PUBLIC: dict[str, Any] = KEY.public_jwk()
PAYLOAD = b"an answer"
MADE = detached.sign(PAYLOAD, KEY)


def test_the_name_of_a_key_is_that_of_other_libraries() -> None:
    key = SigningKey.generate()
    members: dict[str, Any] = key.public_jwk()
    assert key.kid == ECKey.import_key(members).thumbprint()


@pytest.mark.parametrize("known", [[KEY.kid], ["other", KEY.kid]])
def test_a_known_key_counts(known: list[str]) -> None:
    detached.verify(MADE, PAYLOAD, known)
    token = KEY.sign({"jwk": PUBLIC}, {"a": 1})
    assert detached.verify_token(token, known) == {"a": 1}


@pytest.mark.parametrize("known", [[], ["other"], [KEY.kid[:-1]], [OTHER.kid]])
def test_another_one_does_not(known: list[str]) -> None:
    with pytest.raises(AuthenticationError, match=f"signed by the key {KEY.kid}"):
        detached.verify(MADE, PAYLOAD, known)
    with pytest.raises(AuthenticationError, match=f"signed by the key {KEY.kid}"):
        detached.verify_token(KEY.sign({"jwk": PUBLIC}, {}), known)


def test_the_known_key_must_have_signed() -> None:
    forged = OTHER.sign({"jwk": PUBLIC}, {})
    with pytest.raises(AuthenticationError):
        detached.verify_token(forged, [KEY.kid])
    head, _, made = detached.sign(PAYLOAD, OTHER).split(".")
    ours = MADE.split(".")[0]
    with pytest.raises(AuthenticationError):
        detached.verify(f"{ours}..{made}", PAYLOAD, [KEY.kid])
    assert head != ours
    for payload in (b"", b"an answer ", b"another"):
        with pytest.raises(AuthenticationError):
            detached.verify(MADE, payload, [KEY.kid])


@pytest.mark.parametrize(
    "jwk",
    [None, "EC", ["kty", "crv"], {}, {**PUBLIC, "kty": "RSA"}, {**PUBLIC, "crv": "P-384"}],
)
def test_what_is_no_key(jwk: object) -> None:
    with pytest.raises(FormatError, match="there is no P-256 key with it"):
        detached.verify_token(KEY.sign({"jwk": jwk}, {}), [KEY.kid])


def signed(header: dict[str, Any]) -> str:
    text = base64url.encode(encode(header))
    made = KEY.sign_bytes(f"{text}.{base64url.encode(PAYLOAD)}".encode())
    return f"{text}..{base64url.encode(made)}"


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": PUBLIC},
        {"alg": "ES384", "jwk": PUBLIC},
        {"alg": "none", "jwk": PUBLIC},
        {"alg": "ES256"},
        {"alg": "ES256", "jwk": PUBLIC, "crit": ["b64"], "b64": False},
        {"alg": "ES256", "jwk": PUBLIC, "typ": "JWT"},
    ],
)
def test_headers_that_are_not_ours(header: dict[str, Any]) -> None:
    detached.verify(signed({"alg": "ES256", "jwk": PUBLIC}), PAYLOAD, [KEY.kid])
    with pytest.raises(FormatError, match="a header with jwk"):
        detached.verify(signed(header), PAYLOAD, [KEY.kid])


def test_forms() -> None:
    head, _, made = MADE.split(".")
    token = f"{head}.{base64url.encode(PAYLOAD)}.{made}"
    for text in ("", "..", head, f"{head}.{made}", token, f"{MADE}.A", f"{head}..é"):
        with pytest.raises(FormatError):
            detached.verify(text, PAYLOAD, [KEY.kid])
    for size, error in ((16384, AuthenticationError), (16385, FormatError), (20000, FormatError)):
        long = f"{head}..{made}" + "A" * (size - len(MADE))
        with pytest.raises(error, match=r"64 bytes|no detached signature") as caught:
            detached.verify(long, PAYLOAD, [KEY.kid])
        assert ("no detached" in caught.value.message) is (size > 16384)
