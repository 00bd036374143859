# SPDX-License-Identifier: Apache-2.0
"""Encryption of a resource to a TEE's public key: flattened JWE (RFC 7516 §7.2.2).

Written with primitives instead of joserfc because the guest needs exact header bytes
(kbs.md §6) and resources are larger than that library's limits.
"""

from collections.abc import Mapping
from typing import Any, Final

from cocos.crypto import _content, _keywrap, base64url
from cocos.errors import FormatError

TEE_CURVES: Final = ("P-256", "P-521")
_SHOWN: Final = 40  # characters of a stranger's member


def check_public_jwk(jwk: Mapping[str, Any]) -> None:
    """Check that a resource can be encrypted to this key.

    Args:
        jwk: Public key of a TEE, members as in kbs.md §3.

    Raises:
        FormatError: another key type, curve or ``alg``; a point off the curve; coordinates
            that are not full length; RSA outside 2048 to 8192 bits, or with an exponent
            that is even, below 3 or longer than 64 bits.
    """
    load(jwk)


def serves(jwk: Mapping[str, Any]) -> bool:
    """Tell whether resources are encrypted to keys of this kind; whether to this one is open."""
    kty, alg = jwk.get("kty"), jwk.get("alg")
    if kty == "EC":
        return jwk.get("crv") in TEE_CURVES and alg == _keywrap.ECDH_ES
    return kty == "RSA" and alg in list(_keywrap.RSA_PADDINGS)  # it may be unhashable


def encrypt(plaintext: bytes, jwk: Mapping[str, Any]) -> dict[str, str]:
    """Encrypt to a TEE's public key.

    Returns:
        ``protected``, ``encrypted_key``, ``iv``, ``ciphertext``, ``tag``, all base64url
        without padding; the protected header is compact: ``alg``, ``enc``, then ``epk``.

    Raises:
        FormatError: as :func:`check_public_jwk`.
    """
    key, name = load(jwk), jwk["alg"]
    cek = _content.new_key()
    header, encrypted_key = _keywrap.wrap(cek, key, name)
    protected = _content.protect({"alg": name, "enc": _content.ENC, **header})
    return {
        "protected": protected,
        "encrypted_key": base64url.encode(encrypted_key),
        **_content.encrypt(plaintext, cek, protected),
    }


def load(jwk: Mapping[str, Any]) -> _keywrap.PublicKey:
    """Load a TEE's public key.

    Raises:
        FormatError: as :func:`check_public_jwk`.
    """
    kty, alg = jwk.get("kty"), jwk.get("alg")
    if kty == "EC":
        if not serves(jwk):
            raise FormatError(
                f"nothing is encrypted to EC keys with crv {_show(jwk.get('crv'))} and alg "
                f"{_show(alg)}",
                hint=f"alg {_keywrap.ECDH_ES}, crv {' or '.join(TEE_CURVES)}",
            )
        return _keywrap.load_ec(jwk, "the TEE's public key")
    if kty == "RSA":
        if not serves(jwk):
            raise FormatError(
                f"nothing is encrypted to RSA keys with alg {_show(alg)}",
                hint=f"alg {' or '.join(_keywrap.RSA_PADDINGS)}",
            )
        return _keywrap.load_rsa(jwk, "the TEE's public key")
    raise FormatError(f"nothing is encrypted to TEE keys of kty {_show(kty)}", hint="kty EC or RSA")


def _show(member: object) -> str:
    return repr(member)[:_SHOWN]
