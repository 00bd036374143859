# SPDX-License-Identifier: Apache-2.0
"""Resources as KBS protocol 0.1.1 has them (kbs.md §6, "Old JWE").

Not the JWE of RFC 7516: the header is plain JSON text that nothing authenticates, the tag
ends the ciphertext, and RSA1_5 is the only algorithm. For peers that know nothing newer.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cocos.crypto import _content, _keywrap, base64url, jwe
from cocos.errors import FormatError, IntegrityError

ALGORITHM: Final = _keywrap.RSA_1_5
_PROTECTED: Final = json.dumps({"alg": ALGORITHM, "enc": _content.ENC}, separators=(",", ":"))


def check_public_jwk(jwk: Mapping[str, Any]) -> None:
    """Check that a resource can be encrypted to this key.

    Raises:
        FormatError: as for later protocols, or not an RSA1_5 key.
    """
    _load(jwk)


def encrypt(plaintext: bytes, jwk: Mapping[str, Any]) -> dict[str, str]:
    """Encrypt to a TEE's public key.

    Raises:
        FormatError: as :func:`check_public_jwk`.
        TooLargeError: more than 2 GiB.
    """
    key, cek = _load(jwk), _content.new_key()
    _, encrypted_key = _keywrap.wrap(cek, key, ALGORITHM)
    iv = os.urandom(_content.IV_BYTES)
    sealed = AESGCM(cek).encrypt(iv, _content.within_limit(plaintext), None)
    return {
        "protected": _PROTECTED,
        "encrypted_key": base64url.encode(encrypted_key),
        "iv": base64url.encode(iv),
        "ciphertext": base64url.encode(sealed),
        "tag": "",
    }


def decrypt(response: Mapping[str, Any], key: rsa.RSAPrivateKey) -> bytes:
    """Decrypt a resource.

    Raises:
        FormatError: not a resource of this protocol.
        IntegrityError: made for another key, or changed on its way.
    """
    try:
        header = json.loads(str(response.get("protected")))
    except (ValueError, RecursionError) as error:
        raise FormatError("the resource's header is not JSON") from error
    if header != json.loads(_PROTECTED) or response.get("tag") != "":
        raise FormatError(f"this is not a resource of protocol 0.1.1, with {ALGORITHM}")
    encrypted_key, iv, sealed = (
        base64url.decode(response.get(name), f"{name} of the resource")
        for name in ("encrypted_key", "iv", "ciphertext")
    )
    if len(iv) != _content.IV_BYTES:
        raise FormatError(f"iv of the resource must be {_content.IV_BYTES} bytes")
    try:
        return AESGCM(_keywrap.unwrap_rsa(encrypted_key, key, ALGORITHM)).decrypt(iv, sealed, None)
    except InvalidTag as error:
        raise IntegrityError("the resource is for another key, or was changed") from error


def _load(jwk: Mapping[str, Any]) -> rsa.RSAPublicKey:
    key = jwe.load(jwk)
    if not isinstance(key, rsa.RSAPublicKey) or jwk["alg"] != ALGORITHM:
        raise FormatError(
            "protocol 0.1.1 can only encrypt to RSA1_5 keys", hint=f"kty RSA, alg {ALGORITHM}"
        )
    return key
