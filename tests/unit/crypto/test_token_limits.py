# SPDX-License-Identifier: Apache-2.0
"""The edges of JWTs and of the keys that verify them: each check on its own."""

import base64
import datetime as dt
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cocos.crypto import jwk, jwt, signature, signing
from cocos.crypto.signature import SigningPublicKey
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, FormatError

NOW = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
PRESENT = int(NOW.timestamp())
KEY = SigningKey.generate()
PUBLIC = KEY.public_jwk()
RAW = ec.generate_private_key(ec.SECP256R1())


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: bytes, key: ec.EllipticCurvePrivateKey = RAW) -> str:
    """A token whose claims no writer of JSON would write."""
    text = f"{part(json.dumps({'alg': 'ES256'}).encode())}.{part(claims)}"
    return f"{text}.{part(signature.sign(text.encode(), key))}"


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity"])
@pytest.mark.parametrize("name", [b"x", b"exp"])
def test_what_json_does_not_have_is_in_no_token(name: bytes, value: bytes) -> None:
    assert jwt.verify(signed(b'{"%s":1}' % name), RAW.public_key())
    with pytest.raises(FormatError, match="claims is not JSON"):
        jwt.verify(signed(b'{"%s":[{"a":%s}]}' % (name, value)), RAW.public_key())


def test_the_largest_token() -> None:
    head = part(b'{"alg":"ES256"}')

    def of(size: int) -> str:
        return f"{head}.{'A' * (size - len(head) - 3)}.A"

    assert jwt.header_of(of(2**20)) == {"alg": "ES256"}
    for size in (2**20 + 1, 2**21):
        with pytest.raises(FormatError, match="not a signed JWT"):
            jwt.header_of(of(size))


def test_a_part_that_is_no_ascii() -> None:
    with pytest.raises(FormatError, match="not a signed JWT"):
        jwt.header_of(f"{part(b'{}')}.{part(b'{}')}.é")


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": PRESENT + 0.5}, None),
        ({"exp": PRESENT - 59}, None),
        ({"exp": PRESENT - 59.5}, None),
        ({"exp": PRESENT - 60}, "expired"),
        ({"exp": PRESENT + 9, "nbf": PRESENT - 9}, None),
        ({"exp": PRESENT + 9, "nbf": PRESENT}, None),
        ({"exp": PRESENT + 9, "nbf": PRESENT + 60}, None),
        ({"exp": PRESENT + 9, "nbf": PRESENT + 61}, "not valid yet"),
        ({"exp": PRESENT + 9, "nbf": True}, "no nbf claim that is a number"),
        ({"exp": float("nan")}, "no exp claim"),
        ({"exp": float("inf")}, "no exp claim"),
        ({"exp": PRESENT + 9, "nbf": float("nan")}, "no nbf claim"),
        ({"exp": PRESENT + 9, "nbf": float("-inf")}, "no nbf claim"),
    ],
)
def test_times(claims: dict[str, Any], words: str | None) -> None:
    if words is None:
        jwt.check_times(claims, NOW)
        return
    with pytest.raises(AuthenticationError, match=words):
        jwt.check_times(claims, NOW)


def rsa_of(bits: int) -> rsa.RSAPublicKey:
    """A number of so many bits where a key has its modulus; nobody signs with it."""
    return rsa.RSAPublicNumbers(65537, (1 << (bits - 1)) | 1).public_key()


def in_pem(key: SigningPublicKey) -> bytes:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def in_jwk(key: rsa.RSAPublicKey) -> dict[str, str]:
    number = key.public_numbers().n
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return {"kty": "RSA", "e": "AQAB", "n": part(data)}


@pytest.mark.parametrize(
    ("bits", "held"),
    [(1024, False), (2047, False), (2048, True), (8192, True), (8193, False), (16384, False)],
)
def test_how_long_an_rsa_key_may_be(bits: int, held: bool) -> None:
    """What a stranger's key costs to verify with grows with the square of its length."""
    key = rsa_of(bits)
    pem, members = in_pem(key), in_jwk(key)
    if held:
        assert jwk.from_pem(pem, "it").algorithms == jwk.from_jwk(members, "it").algorithms
        return
    with pytest.raises(FormatError, match=f"it has {bits} bits"):
        jwk.from_pem(pem, "it")
    with pytest.raises(FormatError, match=f"it has {bits} bits"):
        jwk.from_jwk(members, "it")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d": "AA"}, "secret key"),
        ({"k": "AA"}, "secret key"),
        ({"kty": "oct"}, "not a key of kind EC, OKP, RSA"),
        ({"kty": None}, "not a key of kind"),
        ({"use": "enc"}, "not for signatures"),
        ({"kid": 1}, "its kid is no text"),
        ({"kid": ["a"]}, "its kid is no text"),
    ],
)
def test_what_is_no_key_of_an_issuer(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FormatError, match=words):
        jwk.from_jwk({**PUBLIC, **change}, "it")


def test_sets() -> None:
    good = {**PUBLIC, "kid": "a"}
    found = jwk.parse_set(json.dumps({"keys": [good] * jwk.MAX_KEYS}).encode(), "it")
    assert len(found) == jwk.MAX_KEYS == 64
    with pytest.raises(FormatError, match="more than 64 keys"):
        jwk.parse_set(json.dumps({"keys": [good] * 65}).encode(), "it")
    for keys in ([good, 1], [1], "ab", {"a": 1}, None):
        with pytest.raises(FormatError, match="not a JWK set"):
            jwk.parse_set(json.dumps({"keys": keys}).encode(), "it")
    # Those of other kinds do not matter.
    listed = [{"kty": "new"}, good, {**good, "kid": 1}, good]
    assert len(jwk.parse_set(json.dumps({"keys": listed}).encode(), "it")) == 2


def test_which_keys_of_a_set_are_tried() -> None:
    other = SigningKey.generate()
    nameless = jwk.from_jwk(PUBLIC, "it")
    named = jwk.from_jwk({**PUBLIC, "kid": "a"}, "it")
    stranger = jwk.from_jwk(other.public_jwk(), "it")
    stranger_named = jwk.from_jwk({**other.public_jwk(), "kid": "a"}, "it")
    plain, called = KEY.sign({}, {"x": 1}), KEY.sign({"kid": "a"}, {"x": 1})
    # Without a kid: all of them, whatever they are called.
    assert jwk.verify_with_any((stranger, named), plain) == {"x": 1}
    # With one: that key, or those that have no name.
    assert jwk.verify_with_any((stranger, named), called) == {"x": 1}
    assert jwk.verify_with_any((nameless,), called) == {"x": 1}
    for keys in ((nameless, stranger_named), (stranger,), ()):
        with pytest.raises(AuthenticationError):
            jwk.verify_with_any(keys, called)


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1()])
def test_curves_that_no_algorithm_is_for(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    assert signature.algorithms(key) == signature.algorithms(key.public_key()) == ()
    with pytest.raises(FormatError, match="the curve of it is not supported"):
        jwk.from_pem(in_pem(key.public_key()), "it")


def test_a_signature_has_one_form() -> None:
    """Zeros before a number change no number; a second token of the same content would."""
    made = signature.sign(b"data", RAW)
    signature.verify(made, b"data", RAW.public_key(), "ES256")
    for bad in (made[:32] + b"\0" + made[32:], b"\0" + made, made + b"\0", made[:-1], b""):
        with pytest.raises(AuthenticationError, match="by ES256 has 64 bytes"):
            signature.verify(bad, b"data", RAW.public_key(), "ES256")


def test_only_p256_verifies_our_own_tokens() -> None:
    p384 = ec.generate_private_key(ec.SECP384R1()).public_key()
    numbers = p384.public_numbers()
    coordinates = {"x": part(numbers.x.to_bytes(48, "big")), "y": part(numbers.y.to_bytes(48))}
    for key in (
        {"kty": "EC", "crv": "P-384", **coordinates},
        {**PUBLIC, "crv": "P-384"},
        {**PUBLIC, "alg": "ES384"},
        {name: value for name, value in PUBLIC.items() if name != "crv"},
    ):
        with pytest.raises(FormatError, match="P-256 keys and ES256 only"):
            signing.verify(KEY.sign({}, {}), key)
    members = {name: value for name, value in PUBLIC.items() if name != "alg"}
    assert signing.verify(KEY.sign({}, {"a": 1}), members) == {"a": 1}


def test_ed25519_by_both_of_its_names() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    assert signature.algorithms(key) == ("EdDSA", "Ed25519")
    signature.verify(signature.sign(b"data", key), b"data", key.public_key(), "Ed25519")


def test_the_largest_header() -> None:
    """What a stranger wrote is read before any signature is looked at."""
    begin = b'{"alg":"ES256","a":"'

    def of(size: int) -> str:
        header = part(begin + b"a" * (size * 3 // 4 - len(begin) - 2) + b'"}')
        assert len(header) == size
        return f"{header}.A.A"

    assert jwt.header_of(of(2**18))["alg"] == "ES256"
    for size in (2**18 + 4, 2**19):
        with pytest.raises(FormatError, match="not a signed JWT"):
            jwt.header_of(of(size))


@pytest.mark.parametrize("text", ["e30", "e30.e30", "e30.e30.A.A", "e30.e30.A.A.A", "..."])
def test_a_token_has_three_parts(text: str) -> None:
    with pytest.raises(FormatError, match="not a signed JWT"):
        jwt.header_of(text)


def test_only_the_algorithms_that_are_allowed() -> None:
    token = KEY.sign({}, {"a": 1})
    assert jwt.verify(token, KEY.public_key(), ["ES256"]) == {"a": 1}
    for allowed in ([], ["ES384"], ["EdDSA"]):
        with pytest.raises(AuthenticationError, match="not signed with"):
            jwt.verify(token, KEY.public_key(), allowed)
