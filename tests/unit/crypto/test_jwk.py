# SPDX-License-Identifier: Apache-2.0
"""Keys of issuers: what an independent library signs is accepted, and nothing else."""

import base64
import hashlib
import hmac
import json
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from joserfc import jwt as jose
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from cocos.crypto import jwk
from cocos.errors import AuthenticationError, FormatError

CLAIMS = {"role": "admin"}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "RSA": RSA,
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}
FITTING = {
    "P-256": ["ES256"],
    "P-384": ["ES384"],
    "P-521": ["ES512"],
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "Ed25519": ["EdDSA", "Ed25519"],
}
PAIRS = [(kind, alg) for kind, fitting in FITTING.items() for alg in fitting]
EVERY = sorted({alg for _, alg in PAIRS})


def private_pem(kind: str) -> bytes:
    pem: bytes = KEYS[kind].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


def public_pem(kind: str) -> bytes:
    pem: bytes = (
        KEYS[kind]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return pem


def jose_key(kind: str) -> Any:
    shape: Any = {"RSA": RSAKey, "Ed25519": OKPKey}.get(kind, ECKey)
    return shape.import_key(private_pem(kind))


def public_jwk(kind: str, **more: Any) -> dict[str, Any]:
    return {**jose_key(kind).as_dict(private=False), **more}


def sign(kind: str, alg: str, **header: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the name EdDSA
        return jose.encode(
            {"alg": alg, **header}, CLAIMS, jose_key(kind), algorithms=[alg, "HS256"]
        )


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(("kind", "alg"), PAIRS)
def test_what_another_library_signs(kind: str, alg: str) -> None:
    token = sign(kind, alg)
    assert jwk.from_pem(public_pem(kind), "k").verify(token) == CLAIMS
    assert jwk.from_jwk(public_jwk(kind), "k").verify(token) == CLAIMS
    assert jwk.from_jwk(public_jwk(kind, alg=alg), "k").verify(token) == CLAIMS


@pytest.mark.parametrize(("kind", "alg"), PAIRS)
def test_an_algorithm_that_the_key_is_not_for(kind: str, alg: str) -> None:
    token = sign(kind, alg)
    _, claims, signature = token.split(".")
    key = jwk.from_pem(public_pem(kind), "k")
    for other in {*EVERY, "none", "None", "", "HS256", "HS512", None, 1, ("RS256",)} - {alg}:
        if {other, alg} == {"EdDSA", "Ed25519"}:
            continue  # two names of one algorithm, the header is signed
        with pytest.raises(AuthenticationError):
            key.verify(f"{part({'alg': other})}.{claims}.{signature}")
    with pytest.raises(AuthenticationError):
        key.verify(f"{part({'alg': 'none'})}.{claims}.")
    for alone in FITTING[kind]:
        if alone != alg:
            restricted = jwk.from_jwk(public_jwk(kind, alg=alone), "k")
            with pytest.raises(AuthenticationError, match=f"not signed with {alone}"):
                restricted.verify(token)


@pytest.mark.parametrize("kind", KEYS)
def test_a_public_key_is_no_secret(kind: str) -> None:
    """The classic confusion: a MAC whose key is what everybody knows."""
    key = jwk.from_pem(public_pem(kind), "k")
    for secret in (public_pem(kind), json.dumps(public_jwk(kind)).encode()):
        for alg, digest in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            signed = f"{part({'alg': alg})}.{part(CLAIMS)}"
            mac = hmac.digest(secret, signed.encode(), digest)
            text = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
            with pytest.raises(AuthenticationError):
                key.verify(f"{signed}.{text}")


@pytest.mark.parametrize(("kind", "alg"), PAIRS)
def test_a_key_in_the_header_counts_for_nothing(kind: str, alg: str) -> None:
    token = sign(kind, alg, jwk=public_jwk(kind))
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = other.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(AuthenticationError):
        jwk.from_pem(pem, "k").verify(token)


def test_signatures_of_the_wrong_length() -> None:
    for kind in ("P-256", "P-384", "P-521"):
        header, claims, signature = sign(kind, FITTING[kind][0]).split(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        for wrong in (b"", raw[:-1], raw + b"\0", bytes(len(raw))):
            text = base64.urlsafe_b64encode(wrong).rstrip(b"=").decode()
            with pytest.raises(AuthenticationError):
                jwk.from_pem(public_pem(kind), "k").verify(f"{header}.{claims}.{text}")


P256 = public_jwk("P-256")
BAD: dict[str, dict[str, Any]] = {
    "empty": {},
    "symmetric": OctKey.generate_key(256).as_dict(private=True),
    "private": {**P256, "d": "AAAA"},
    "off the curve": {**P256, "x": P256["y"]},
    "short coordinate": {**P256, "x": "AAAA"},
    "no coordinate": {"kty": "EC", "crv": "P-256", "x": P256["x"]},
    "another curve": {**P256, "crv": "P-384"},
    "no text": {**P256, "x": 1},
    "for encryption": {**P256, "use": "enc"},
    "another algorithm": {**P256, "alg": "RS256"},
    "none": {**P256, "alg": "none"},
    "a list": {**P256, "alg": ["ES256"]},
    "kid is a number": {**P256, "kid": 7},
    "exchange of keys": OKPKey.import_key(
        x25519.X25519PrivateKey.generate().public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    ).as_dict(private=False),
    "exponent 1": {**public_jwk("RSA"), "e": "AQ"},
    "a huge modulus": {**public_jwk("RSA"), "n": "_" * 2**20},
    "a huge exponent": {**public_jwk("RSA"), "e": "_" * 400},
    "an even modulus": {**public_jwk("RSA"), "n": "_" * 341 + "4"},
    "too many bits by one": {**public_jwk("RSA"), "n": "AQ" + "A" * 1362 + "AE"},
    "padding": {**P256, "x": P256["x"] + "="},
    "a short Ed25519 key": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
    "kind of another case": {**P256, "kty": "ec"},
    "kind is a list": {**P256, "kty": ["EC"]},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_keys_that_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        jwk.from_jwk(BAD[name], "k")


def test_why_a_key_is_refused() -> None:
    with pytest.raises(FormatError, match=r"k is not an Ed25519 key\Z"):
        jwk.from_jwk(BAD["a short Ed25519 key"], "k")
    for made in (ed448.Ed448PrivateKey.generate(), x25519.X25519PrivateKey.generate()):
        pem = made.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        with pytest.raises(FormatError, match="k is not an Ed25519, EC or RSA key"):
            jwk.from_pem(pem, "k")


def test_short_rsa_keys() -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()  # noqa: S505
    pem = short.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(FormatError, match="1024 bits"):
        jwk.from_pem(pem, "k")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(FormatError, match="1024 bits"):
            jwk.from_jwk(RSAKey.import_key(pem).as_dict(private=False), "k")


@pytest.mark.parametrize("pem", [b"", b"junk", private_pem("P-256")])
def test_what_is_no_public_key(pem: bytes) -> None:
    with pytest.raises(FormatError, match="not a public key in PEM"):
        jwk.from_pem(pem, "k")


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_a_set_keeps_what_it_can_use() -> None:
    odd = [jwk_ for name, jwk_ in BAD.items() if name not in {"symmetric", "private"}]
    keys = jwk.parse_set(key_set(*odd, {"kty": "AKP"}, P256, public_jwk("RSA", kid="r")), "s")
    assert [key.kid for key in keys] == [None, "r"]


@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"{}", b"[]", b"null", b'{"keys":1}', b'{"keys":[1]}', b"\xff", b"[" * 5000],
        key_set(*[P256] * 65),
        key_set(P256, BAD["private"]),
        key_set(P256, BAD["symmetric"]),
    ],
)
def test_what_is_no_set(data: bytes) -> None:
    with pytest.raises(FormatError):
        jwk.parse_set(data, "s")


def test_kid_chooses_among_the_keys_of_a_set() -> None:
    keys = jwk.parse_set(key_set(public_jwk("P-256", kid="a"), public_jwk("RSA", kid="b")), "s")
    assert jwk.verify_with_any(keys, sign("P-256", "ES256", kid="a")) == CLAIMS
    assert jwk.verify_with_any(keys, sign("RSA", "PS256")) == CLAIMS
    for token in (sign("P-256", "ES256", kid="b"), sign("P-256", "ES256", kid="c")):
        with pytest.raises(AuthenticationError):
            jwk.verify_with_any(keys, token)
    with pytest.raises(AuthenticationError):
        jwk.verify_with_any((), sign("RSA", "PS256"))
