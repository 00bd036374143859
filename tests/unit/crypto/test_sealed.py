# SPDX-License-Identifier: Apache-2.0
"""Results sealed to their consumers."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc import jwe as jose
from joserfc.jwk import ECKey

from cocos.crypto.sealed import check_recipient, open_sealed, seal
from cocos.errors import ConfigError, FormatError, IntegrityError


def halves(key: Any) -> tuple[bytes, bytes]:
    """Return a private key's PEM and its public DER."""
    return (
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


RSA_KEY = halves(rsa.generate_private_key(public_exponent=65537, key_size=2048))
EC_KEYS = [
    halves(ec.generate_private_key(curve))
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
]
ALL = [RSA_KEY, *EC_KEYS]


@pytest.mark.parametrize("own", range(len(ALL)))
def test_every_recipient_opens(own: int) -> None:
    sealed = seal(b"result", [public for _, public in ALL])
    assert open_sealed(sealed, ALL[own][0]) == b"result"
    assert b"result" not in sealed


def test_outsider_does_not_open() -> None:
    sealed = seal(b"result", [RSA_KEY[1], EC_KEYS[0][1]])
    outsiders = [
        EC_KEYS[1],
        halves(ec.generate_private_key(ec.SECP256R1())),
        halves(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    ]
    for private, _ in outsiders:
        with pytest.raises(IntegrityError, match="not sealed to this key"):
            open_sealed(sealed, private)


def test_independent_library_opens() -> None:
    sealed: Any = json.loads(seal(b"result", [EC_KEYS[0][1]]))
    names = ["ECDH-ES+A256KW", "A256GCM"]
    opened = jose.decrypt_json(sealed, ECKey.import_key(EC_KEYS[0][0]), algorithms=names)
    assert opened.plaintext == b"result"


def test_keys_that_cannot_encrypt() -> None:
    ed = halves(ed25519.Ed25519PrivateKey.generate())
    short = halves(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505 - the attack
    other_curve = halves(ec.generate_private_key(ec.SECP256K1()))
    for _, public in (ed, short, other_curve, (b"", b""), (b"", b"nonsense")):
        with pytest.raises(FormatError):
            seal(b"x", [RSA_KEY[1], public])
        with pytest.raises(FormatError):
            check_recipient(public)
    with pytest.raises(FormatError) as caught:
        seal(b"x", [ed[1]])
    assert caught.value.hint
    assert "rsa" in caught.value.hint
    with pytest.raises(ConfigError):
        open_sealed(seal(b"x", [RSA_KEY[1]]), ed[0])


@pytest.mark.parametrize("count", [0, 65])
def test_number_of_recipients(count: int) -> None:
    with pytest.raises(FormatError):
        seal(b"x", [EC_KEYS[0][1]] * count)


def test_as_many_recipients_as_there_may_be() -> None:
    sealed = seal(b"result", [EC_KEYS[1][1]] * 63 + [EC_KEYS[0][1]])
    assert open_sealed(sealed, EC_KEYS[0][0]) == b"result"
    more = json.loads(sealed)
    more["recipients"].append(more["recipients"][-1])
    with pytest.raises(FormatError, match="1 to 64"):
        open_sealed(json.dumps(more).encode(), EC_KEYS[0][0])


@pytest.mark.parametrize("member", ["iv", "ciphertext", "tag"])
def test_tampered(member: str) -> None:
    sealed = json.loads(seal(b"result", [RSA_KEY[1]]))
    text = sealed[member]
    sealed[member] = ("B" if text[0] == "A" else "A") + text[1:]
    with pytest.raises(IntegrityError):
        open_sealed(json.dumps(sealed).encode(), RSA_KEY[0])


@pytest.mark.parametrize(
    "change",
    [
        {"recipients": []},
        {"recipients": {}},
        {"recipients": [1]},
        {"recipients": 1},
        {"recipients": [{"header": []}]},
        {"recipients": [{"header": [], "encrypted_key": "AAAA"}]},
        {"recipients": [{"header": {"alg": "RSA-OAEP-256"}}]},
        {"protected": "e30"},
        {"protected": None},
        {"protected": 1},
        {"extra": 1},
    ],
)
def test_malformed(change: dict[str, Any]) -> None:
    sealed = json.loads(seal(b"result", [RSA_KEY[1]]))
    with pytest.raises(FormatError):
        open_sealed(json.dumps({**sealed, **change}).encode(), RSA_KEY[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'["protected", "recipients", "iv", "ciphertext", "tag"]',
        b"PK\x03\x04",
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_not_sealed_at_all(data: bytes) -> None:
    with pytest.raises(FormatError):
        open_sealed(data, RSA_KEY[0])


def test_private_keys_that_are_none() -> None:
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    )
    sealed = seal(b"x", [EC_KEYS[0][1]])
    for pem in (b"", b"nonsense", locked, EC_KEYS[0][1]):
        with pytest.raises(ConfigError, match="not an unencrypted key"):
            open_sealed(sealed, pem)


@pytest.mark.parametrize(
    ("key", "label"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "RSA PRIVATE KEY"),
        (ec.generate_private_key(ec.SECP256R1()), "EC PRIVATE KEY"),
    ],
)
@pytest.mark.parametrize("shown", ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"])
@pytest.mark.parametrize("form", ["TraditionalOpenSSL", "PKCS8"])
def test_a_key_opens_whatever_its_label_says(key: Any, label: str, shown: str, form: str) -> None:
    """The original's CLI writes PKCS#1 as ``PRIVATE KEY``."""
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, form),
        serialization.NoEncryption(),
    )
    pem = pem.replace((label if form != "PKCS8" else "PRIVATE KEY").encode(), shown.encode())
    assert open_sealed(seal(b"result", [halves(key)[1]]), pem) == b"result"


@pytest.mark.parametrize("body", ["", "AAAA", "AAA", "!!!", "MIIB"])
def test_a_label_makes_no_key(body: str) -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n".encode()
    with pytest.raises(ConfigError):
        open_sealed(seal(b"result", [RSA_KEY[1]]), pem)
