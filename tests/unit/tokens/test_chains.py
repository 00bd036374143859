# SPDX-License-Identifier: Apache-2.0
"""Certificate chains in tokens: which lead to somebody trusted, and which only seem to."""

import datetime as dt
from typing import Any

import pytest
from _certificates import NOW, Party
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from cocos.crypto import base64url
from cocos.crypto.signing import SigningKey
from cocos.errors import AuthenticationError, CocosError, ConfigError, FormatError
from cocos.tokens.chains import MAX_CERTIFICATES, CertifiedKeys, parse_trusted
from cocos.tokens.signer import Signer
from cocos.wire import json

CLAIMS = {"a": 1}
ROOT = Party("root").certify(ca=True, path_length=1)
INTER = Party("inter").certify(ROOT, ca=True)
LEAF = Party("leaf").certify(INTER)
DIRECT = Party("direct").certify(ROOT)


def token(signer: Party, *chain: Party | str, **jwk: Any) -> str:
    key = signer.signing_key
    x5c = [each if isinstance(each, str) else each.x5c for each in chain]
    return key.sign({"jwk": {**key.public_jwk(), "x5c": x5c, **jwk}}, CLAIMS)


async def verify(text: str, *trusted: Party, now: dt.datetime = NOW) -> dict[str, Any]:
    keys = CertifiedKeys([each.certificate for each in trusted], clock=lambda: now)
    return await keys.verify(text)


async def accepted(text: str, *trusted: Party) -> bool:
    try:
        return await verify(text, *trusted) == CLAIMS
    except AuthenticationError as error:
        # Nothing else may be the reason.
        return "certificate in the token" not in error.message


async def test_chains_that_hold() -> None:
    assert await accepted(token(DIRECT, DIRECT), ROOT)
    assert await accepted(token(LEAF, LEAF, INTER), ROOT)
    assert await accepted(token(LEAF, LEAF, INTER, ROOT), ROOT)
    own = Party("own").certify()
    assert await accepted(token(own, own), own)
    own_ca = Party("own").certify(ca=True)
    assert await accepted(token(own_ca, own_ca), own_ca)


async def test_intermediates_in_any_order_or_in_the_trust_file() -> None:
    root = Party("r").certify(ca=True)
    first = Party("i1").certify(root, ca=True)
    second = Party("i2").certify(first, ca=True)
    leaf = Party("l").certify(second)
    assert await accepted(token(leaf, leaf, first, second), root)
    assert await accepted(token(leaf, leaf, second, first), root)
    assert await accepted(token(leaf, leaf, second), root, first)
    assert await accepted(token(leaf, leaf), root, second, first)
    # What the operator names is trusted by itself.
    assert await accepted(token(leaf, leaf), second)
    assert not await accepted(token(leaf, leaf, first), root)


async def test_wrong_anchors() -> None:
    stranger = Party("root").certify(ca=True)
    assert not await accepted(token(DIRECT, DIRECT), stranger)
    assert not await accepted(token(DIRECT, DIRECT, ROOT), stranger)
    forged = Party("direct").certify(stranger)
    assert not await accepted(token(forged, forged), ROOT)
    assert not await accepted(token(forged, forged, stranger), ROOT)
    own = Party("own").certify()
    assert not await accepted(token(own, own), ROOT)
    # A certificate of the same name and key that somebody else signed.
    copy = Party("direct", DIRECT.key).certify(stranger)
    assert not await accepted(token(copy, copy), ROOT)


async def test_key_and_leaf_must_match() -> None:
    mallory = Party("mallory").certify()
    with pytest.raises(AuthenticationError, match="not of its key"):
        await verify(token(mallory, DIRECT), ROOT)
    with pytest.raises(AuthenticationError, match="not of its key"):
        await verify(token(mallory, mallory, x5c=[DIRECT.x5c, mallory.x5c]), ROOT)
    # The genuine header with a signature by another key.
    header = {"jwk": {**DIRECT.signing_key.public_jwk(), "x5c": [DIRECT.x5c]}}
    with pytest.raises(AuthenticationError, match="not signed"):
        await verify(mallory.signing_key.sign(header, CLAIMS), ROOT)


async def test_times() -> None:
    text = token(LEAF, LEAF, INTER)
    assert await verify(text, ROOT) == CLAIMS
    for days in (-2, 40):
        with pytest.raises(AuthenticationError, match="trusted"):
            await verify(text, ROOT, now=NOW + dt.timedelta(days=days))
    old = Party("root", ROOT.key).certify(ca=True, start=NOW - dt.timedelta(days=9), days=1)
    assert not await accepted(token(DIRECT, DIRECT), old)
    stale = Party("inter", INTER.key).certify(
        ROOT, ca=True, start=NOW - dt.timedelta(days=9), days=1
    )
    assert not await accepted(token(LEAF, LEAF, stale), ROOT)


@pytest.mark.parametrize(
    "constraints",
    [{}, {"ca": False}, {"ca": True, "certifies": False}],
    ids=["nothing said", "no CA", "may not certify"],
)
async def test_those_who_may_not_issue(constraints: dict[str, Any]) -> None:
    """Whoever got a certificate of the CA could else certify himself any key."""
    fake = Party("inter", INTER.key).certify(ROOT, **constraints)
    assert not await accepted(token(LEAF, LEAF, fake), ROOT)


async def test_path_length() -> None:
    second = Party("second").certify(INTER, ca=True)
    leaf = Party("deep").certify(second)
    assert not await accepted(token(leaf, leaf, second, INTER), ROOT)
    none = Party("inter", INTER.key).certify(ROOT, ca=True, path_length=0)
    free = Party("root", ROOT.key).certify(ca=True)
    assert await accepted(token(leaf, leaf, second, INTER), free)
    assert not await accepted(token(leaf, leaf, second, none), free)
    assert await accepted(token(LEAF, LEAF, none), free)


async def test_leaf_that_may_not_sign_data() -> None:
    leaf = Party("leaf").certify(ROOT, certifies=True)
    assert not await accepted(token(leaf, leaf), ROOT)
    assert await accepted(token(*[Party("leaf").certify(ROOT, certifies=False)] * 2), ROOT)


@pytest.mark.parametrize("issuer", [False, True])
async def test_unknown_critical_extension(issuer: bool) -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    for critical in (False, True):
        more = [x509.Extension(unknown.oid, critical, unknown)]
        inter = Party("inter", INTER.key).certify(ROOT, ca=True, more=more if issuer else [])
        leaf = Party("leaf").certify(inter, more=[] if issuer else more)
        assert await accepted(token(leaf, leaf, inter), ROOT) is not critical


MALFORMED: dict[str, Any] = {
    "absent": None,
    "empty": [],
    "text": "",
    "object": {},
    "number": [1],
    "null": [None],
    "no base64": ["!"],
    "no certificate": ["AAAA"],
    "cut off": [DIRECT.x5c[:-8]],
    "second malformed": [DIRECT.x5c, "AAAA"],
    "many": [DIRECT.x5c] * (MAX_CERTIFICATES + 1),
    "long": ["A" * 40_000],
    "with a letter more": [f"{DIRECT.x5c}!"],
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_chains(what: str) -> None:
    with pytest.raises((AuthenticationError, FormatError)):
        await verify(token(DIRECT, x5c=MALFORMED[what]), ROOT)


async def test_base64url_of_some_issuers() -> None:
    changed = DIRECT.x5c.rstrip("=").translate(str.maketrans("+/", "-_"))
    assert await accepted(token(DIRECT, changed), ROOT)


@pytest.mark.parametrize(
    "jwk", [None, "x", [], {}, {"alg": "ES256"}, {"kty": "oct", "alg": "HS256", "k": "AAAA"}]
)
async def test_other_keys_in_the_header(jwk: Any) -> None:
    with pytest.raises((AuthenticationError, FormatError)):
        await verify(DIRECT.signing_key.sign({"jwk": jwk}, CLAIMS), ROOT)


async def test_key_without_algorithm() -> None:
    key = DIRECT.signing_key
    nameless = {name: value for name, value in key.public_jwk().items() if name != "alg"}
    text = key.sign({"jwk": {**nameless, "x5c": [DIRECT.x5c]}}, CLAIMS)
    with pytest.raises(AuthenticationError, match="algorithm"):
        await verify(text, ROOT)


def rsa_token(key: rsa.RSAPrivateKey, algorithm: str, x5c: str, **jwk: Any) -> str:
    numbers = key.public_key().public_numbers()
    members = {
        "kty": "RSA",
        "alg": algorithm,
        "n": base64url.encode(numbers.n.to_bytes(256, "big")),
        "e": "AQAB",
        "x5c": [x5c],
    }
    parts = [{"alg": algorithm, "jwk": members | jwk}, CLAIMS]
    signed = ".".join(base64url.encode(json.encode(part)) for part in parts)
    made = key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
    return f"{signed}.{base64url.encode(made)}"


async def test_rsa() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf = Party("rsa", key).certify(ROOT)
    assert await verify(rsa_token(key, "RS256", leaf.x5c), ROOT) == CLAIMS
    # One algorithm in the key, another in the header.
    with pytest.raises(CocosError):
        await verify(rsa_token(key, "RS256", leaf.x5c, alg="PS256"), ROOT)
    with pytest.raises(CocosError):
        await verify(rsa_token(key, "RS256", leaf.x5c, alg="ES256"), ROOT)


def test_trust_files() -> None:
    assert len(parse_trusted(ROOT.pem + INTER.pem, "file")) == 2
    for pem in (b"", b"x", DIRECT.signing_key.pem()):
        with pytest.raises(ConfigError, match="file holds no certificates"):
            parse_trusted(pem, "file")


async def test_own_tokens_with_certificates() -> None:
    signer = Signer.load(LEAF.signing_key.pem(), LEAF.pem + INTER.pem, "https://x/chain.pem")
    header = signer.header
    assert list(header) == ["kid", "jwk"]
    assert list(header["jwk"]) == ["alg", "x5u", "x5c", "kty", "crv", "x", "y"]
    assert header["jwk"]["x5c"] == [LEAF.x5c, INTER.x5c]
    assert header["jwk"]["x5u"] == "https://x/chain.pem"
    assert await accepted(signer.key.sign(header, CLAIMS), ROOT)
    assert "x5c" not in Signer.load(LEAF.signing_key.pem(), None, None).header["jwk"]


def test_certificates_of_another_key() -> None:
    key = SigningKey.generate().pem()
    with pytest.raises(ConfigError, match="not of the token signing key"):
        Signer.load(key, LEAF.pem, None)
    with pytest.raises(ConfigError, match="not of the token signing key"):
        Signer.load(LEAF.signing_key.pem(), INTER.pem + LEAF.pem, None)
    with pytest.raises(ConfigError, match="not PEM"):
        Signer.load(key, b"x", None)
    with pytest.raises(ConfigError, match="P-256"):
        Signer.load(Party("x", ec.generate_private_key(ec.SECP384R1())).key_pem, None, None)
