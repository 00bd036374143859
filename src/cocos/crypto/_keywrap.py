# SPDX-License-Identifier: Apache-2.0
"""How a content encryption key reaches one recipient: RFC 7518 §4.2, §4.3 and §4.6.

RSA keys get RSA-OAEP-256, or RSA1_5 where their owner says so; EC keys ECDH-ES+A256KW. The
recipient's own key decides which algorithm it accepts, never the header, so that a sender
cannot choose a weaker one.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from cocos.crypto import base64url
from cocos.errors import FormatError, IntegrityError

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

RSA_OAEP: Final = "RSA-OAEP-256"
RSA_1_5: Final = "RSA1_5"
ECDH_ES: Final = "ECDH-ES+A256KW"
CURVES: Final[Mapping[str, ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
RSA_BITS: Final = range(2048, 8192 + 1)

_EXPONENT_BYTES = 8
_KEK_BYTES = 32
_CEK_BYTES = 32
RSA_PADDINGS: Final[Mapping[str, padding.AsymmetricPadding]] = {
    RSA_OAEP: padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None),
    RSA_1_5: padding.PKCS1v15(),
}


def check_rsa_bits(bits: int, what: str) -> None:
    """Refuse RSA moduli that are too short to trust or so long that they cost us.

    Raises:
        FormatError: fewer than 2048 or more than 8192 bits.
    """
    if bits not in RSA_BITS:
        raise FormatError(f"{what} has {bits} bits", hint="2048 to 8192 are accepted")


def curve_name(curve: ec.EllipticCurve) -> str:
    """Return the JOSE name of a curve.

    Raises:
        FormatError: not one of P-256, P-384 and P-521.
    """
    for name, known in CURVES.items():
        if known.name == curve.name:
            return name
    raise FormatError(f"the curve {curve.name} is not supported", hint=", ".join(CURVES))


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of a key: the thumbprint of RFC 7638, SHA-256 in base64url."""
    text = json.dumps(ec_members(key), separators=(",", ":"), sort_keys=True)
    return base64url.encode(hashlib.sha256(text.encode("ascii")).digest())


def ec_members(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return ``crv``, ``kty``, ``x``, ``y`` of a JWK, coordinates left-padded to full length."""
    numbers, size = key.public_numbers(), (key.key_size + 7) // 8
    return {
        "crv": curve_name(key.curve),
        "kty": "EC",
        "x": base64url.encode(numbers.x.to_bytes(size, "big")),
        "y": base64url.encode(numbers.y.to_bytes(size, "big")),
    }


def load_ec(jwk: Mapping[str, Any], what: str) -> ec.EllipticCurvePublicKey:
    """Load an EC public key from its JWK.

    Raises:
        FormatError: unknown curve, coordinates not full length, or not a point of the curve.
    """
    name = jwk.get("crv")
    curve = CURVES.get(name) if isinstance(name, str) else None
    if jwk.get("kty") != "EC" or curve is None:
        raise FormatError(f"{what} is not an EC key", hint=f"crv is one of {', '.join(CURVES)}")
    size = (curve.key_size + 7) // 8
    x, y = (base64url.decode(jwk.get(member), f"{member} of {what}") for member in ("x", "y"))
    if len(x) != size or len(y) != size:
        raise FormatError(f"coordinates of {what} must be {size} bytes each for {name}")
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve
    )
    try:
        return numbers.public_key()
    except ValueError as error:
        raise FormatError(f"{what} is not a point on {name}") from error


def load_rsa(jwk: Mapping[str, Any], what: str) -> rsa.RSAPublicKey:
    """Load an RSA public key from its JWK; numbers that would cost us are never computed with.

    Raises:
        FormatError: not such a key, or larger or smaller than :data:`RSA_BITS`.
    """
    raw = {name: base64url.decode(jwk.get(name), f"{name} of {what}") for name in ("n", "e")}
    modulus, exponent = (int.from_bytes(raw[name], "big") for name in ("n", "e"))
    check_rsa_bits(modulus.bit_length(), what)
    if modulus % 2 == 0 or len(raw["e"]) > _EXPONENT_BYTES:
        raise FormatError(f"{what} is not a valid RSA key")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise FormatError(f"{what} is not a valid RSA key") from error


def algorithm(key: PublicKey) -> str:
    """Return the key management algorithm that ``key`` is used with unless its owner says."""
    return RSA_OAEP if isinstance(key, rsa.RSAPublicKey) else ECDH_ES


def wrap(cek: bytes, key: PublicKey, name: str) -> tuple[dict[str, Any], bytes]:
    """Encrypt a content encryption key to one recipient.

    Args:
        cek: The key.
        key: The recipient's key.
        name: Algorithm, one that fits the kind of ``key``.

    Returns:
        Header members beside ``alg`` (none, or ``epk``), and the encrypted key.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return {}, key.encrypt(cek, RSA_PADDINGS[name])
    ephemeral = ec.generate_private_key(key.curve)
    kek = _agreed_key(ephemeral, key)
    return {"epk": ec_members(ephemeral.public_key())}, aes_key_wrap(kek, cek)


def unwrap(header: Mapping[str, Any], encrypted_key: bytes, key: PrivateKey, name: str) -> bytes:
    """Recover a content encryption key.

    Args:
        header: Header members, ``alg`` among them.
        encrypted_key: As received.
        key: The recipient's key.
        name: Algorithm, one that fits the kind of ``key``.

    Raises:
        FormatError: another algorithm, or header members that this algorithm does not have
            (``apu`` and ``apv`` would change the derived key).
        IntegrityError: it was not made for ``key``.
    """
    expected = {"alg"} if isinstance(key, rsa.RSAPrivateKey) else {"alg", "epk"}
    if header.get("alg") != name:
        raise FormatError(f"the key was not wrapped with {name}, the algorithm of this key")
    if set(header) != expected:
        raise FormatError(f"a {name} header has exactly {', '.join(sorted(expected))}")
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            return unwrap_rsa(encrypted_key, key, name)
        epk = header["epk"]
        if not isinstance(epk, Mapping) or epk.get("crv") != curve_name(key.curve):
            raise FormatError("the ephemeral key is not on the curve of this key")
        kek = _agreed_key(key, load_ec(epk, "the ephemeral key"))
        return aes_key_unwrap(kek, encrypted_key)
    except (ValueError, InvalidUnwrap) as error:
        raise IntegrityError("the content key was not encrypted to this key") from error


def unwrap_rsa(encrypted_key: bytes, key: rsa.RSAPrivateKey, name: str) -> bytes:
    """Recover a content encryption key with RSA.

    With RSA1_5 a wrong padding gives a random key instead of an error: whoever sends us
    changed messages learns nothing from how we fail (RFC 7516 §11.5).

    Raises:
        ValueError: not encrypted to ``key``; never with RSA1_5.
    """
    if name != RSA_1_5:
        return key.decrypt(encrypted_key, RSA_PADDINGS[name])
    instead = os.urandom(_CEK_BYTES)
    try:
        cek = key.decrypt(encrypted_key, RSA_PADDINGS[name])
    except ValueError:
        return instead
    return cek if len(cek) == _CEK_BYTES else instead


def _agreed_key(own: ec.EllipticCurvePrivateKey, other: ec.EllipticCurvePublicKey) -> bytes:
    # RFC 7518 §4.6.2: AlgorithmID, empty PartyUInfo and PartyVInfo, key length in bits.
    name = ECDH_ES.encode("ascii")
    info = struct.pack(">I", len(name)) + name + struct.pack(">III", 0, 0, 8 * _KEK_BYTES)
    kdf = ConcatKDFHash(algorithm=hashes.SHA256(), length=_KEK_BYTES, otherinfo=info)
    return kdf.derive(own.exchange(ec.ECDH(), other))
