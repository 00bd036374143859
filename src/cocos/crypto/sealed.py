# SPDX-License-Identifier: Apache-2.0
"""Results that only their consumers can read: a general JSON JWE (RFC 7516 §7.2.1).

The carriers of a result, such as the CVMS, are not trusted; the CVM seals it to the
public keys that the manifest names. Any JOSE library with A256GCM, RSA-OAEP-256 and
ECDH-ES+A256KW opens it.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cocos.crypto import _content, _keywrap, base64url, private_keys
from cocos.errors import ConfigError, FormatError, IntegrityError

MAX_RECIPIENTS: Final = 64
_HINT = "make an rsa or ecdsa key: cocos-cli keys"


def check_recipient(key: bytes) -> None:
    """Check that something can be sealed to this key.

    Args:
        key: DER SubjectPublicKeyInfo.

    Raises:
        FormatError: neither RSA from 2048 bits nor EC P-256, P-384 or P-521.
    """
    _load_public(key)


def seal(plaintext: bytes, recipients: Sequence[bytes]) -> bytes:
    """Encrypt to every recipient.

    Args:
        plaintext: The content.
        recipients: Public keys, DER SubjectPublicKeyInfo: RSA from 2048 bits, EC P-256,
            P-384 or P-521.

    Returns:
        UTF-8 JSON.

    Raises:
        FormatError: no recipient, too many, or a key that cannot encrypt.
    """
    if not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise FormatError(f"1 to {MAX_RECIPIENTS} recipients are needed, not {len(recipients)}")
    keys = [_load_public(key) for key in recipients]
    cek = _content.new_key()
    protected = _content.protect({"enc": _content.ENC})
    wrapped = []
    for key in keys:
        name = _keywrap.algorithm(key)
        header, encrypted_key = _keywrap.wrap(cek, key, name)
        wrapped.append(
            {
                "header": {"alg": name, **header},
                "encrypted_key": base64url.encode(encrypted_key),
            }
        )
    jwe = {
        "protected": protected,
        "recipients": wrapped,
        **_content.encrypt(plaintext, cek, protected),
    }
    return json.dumps(jwe, separators=(",", ":")).encode("ascii")


def open_sealed(data: bytes, private_key_pem: bytes) -> bytes:
    """Decrypt with the key of one of the recipients.

    Raises:
        ConfigError: the key file is not an unencrypted RSA or EC private key.
        FormatError: ``data`` is not a sealed content.
        IntegrityError: it was sealed to other keys, or changed.
    """
    key = _load_private(private_key_pem)
    try:
        jwe = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError("this is not a sealed result: it is not JSON") from error
    if not isinstance(jwe, dict) or set(jwe) != {
        "protected",
        "recipients",
        "iv",
        "ciphertext",
        "tag",
    }:
        raise FormatError("this is not a sealed result: a general JSON JWE is")
    if _content.open_header(jwe["protected"]):
        raise FormatError("a sealed result has no protected header members but enc")
    recipients = jwe["recipients"]
    if not isinstance(recipients, list) or not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise FormatError(f"a sealed result has 1 to {MAX_RECIPIENTS} recipients")
    for recipient in recipients:
        cek = _try_recipient(recipient, key)
        if cek is not None:
            return _content.decrypt(jwe, cek)
    raise IntegrityError(
        "this result was not sealed to this key",
        hint="use the private key whose public half the manifest lists under result_consumers",
    )


def _try_recipient(recipient: object, key: _keywrap.PrivateKey) -> bytes | None:
    if not isinstance(recipient, dict) or not isinstance(recipient.get("header"), dict):
        raise FormatError("a recipient of the sealed result is malformed")
    header: dict[str, Any] = recipient["header"]
    encrypted_key = base64url.decode(recipient.get("encrypted_key"), "encrypted_key of a recipient")
    try:
        name = _keywrap.algorithm(key.public_key())
        return _keywrap.unwrap(header, encrypted_key, key, name)
    except (FormatError, IntegrityError):
        return None  # somebody else's entry: another algorithm, curve or key


def _load_public(der: bytes) -> _keywrap.PublicKey:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise FormatError(
            "a result consumer's key is not a public key in DER", hint=_HINT
        ) from error
    if isinstance(key, rsa.RSAPublicKey):
        _keywrap.check_rsa_bits(key.key_size, "a result consumer's key")
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        _keywrap.curve_name(key.curve)
        return key
    raise FormatError("nothing can be encrypted to this kind of key", hint=_HINT)


def _load_private(pem: bytes) -> _keywrap.PrivateKey:
    try:
        key = private_keys.load(pem)
    except private_keys.UNREADABLE as error:
        raise ConfigError("the private key is not an unencrypted key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise ConfigError("this kind of key cannot decrypt", hint=_HINT)
    return key
