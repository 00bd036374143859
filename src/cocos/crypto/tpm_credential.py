# SPDX-License-Identifier: Apache-2.0
"""TPM2_MakeCredential in software: a secret that only one key in one TPM recovers.

After the TPM 2.0 Library Specification, part 1, §24 (credential protection) and annex B.10
(RSA secret sharing). The endorsement key is taken to be of the TCG's default template
for RSA-2048 (EK Credential Profile, L-1): name hash SHA-256, AES-128 in CFB mode.
"""

import hmac
import os
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the specification's choice
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from cocos.errors import FormatError

SECRET_BYTES: Final = 32  # at most the length of the name hash (part 3 §12.6)
EK_BITS: Final = 2048
_HASH_BYTES: Final = 32
_AES_BYTES: Final = 16  # a key's, and a block's


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the TPM is given.

    Attributes:
        credential_blob: TPM2B_ID_OBJECT.
        encrypted_secret: TPM2B_ENCRYPTED_SECRET.
    """

    credential_blob: bytes
    encrypted_secret: bytes


def make_credential(key: rsa.RSAPublicKey, name: bytes, secret: bytes) -> Challenge:
    """Protect ``secret`` so that TPM2_ActivateCredential returns it, under two conditions.

    The TPM must hold the private part of ``key``, and an object named ``name``.

    Args:
        key: The endorsement key.
        name: Of the attestation key: TPM_ALG_ID of the name hash, digest of the public area.
        secret: Up to :data:`SECRET_BYTES` bytes.

    Raises:
        FormatError: an endorsement key of another length; its template is unknown.
    """
    if key.key_size != EK_BITS:
        raise FormatError(
            f"the endorsement key has {key.key_size} bits", hint=f"only {EK_BITS} are supported"
        )
    if not 0 < len(secret) <= SECRET_BYTES:
        raise ValueError(f"a credential has 1 to {SECRET_BYTES} bytes")
    seed = os.urandom(_HASH_BYTES)
    # Part 1 §B.10.4: OAEP with the name hash, label "IDENTITY" and its terminating zero.
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
    encrypted = _sized(key.encrypt(seed, oaep))
    # Part 1 §24.4: the symmetric key depends on the name, the HMAC key does not.
    identity = _aes_cfb(kdfa(seed, "STORAGE", name, _AES_BYTES), _sized(secret))
    mac_key = kdfa(seed, "INTEGRITY", b"", _HASH_BYTES)
    # Part 1 §24.5: the outer HMAC binds the encrypted identity to the name.
    mac = hmac.digest(mac_key, identity + name, "sha256")
    return Challenge(_sized(_sized(mac) + identity), encrypted)


def kdfa(key: bytes, label: str, context: bytes, size: int) -> bytes:
    """Derive a key of so many bytes: KDFa with SHA-256 (part 1 §11.4.10.2).

    The derivation in counter mode of NIST SP 800-108.
    """
    derivation = KBKDFHMAC(
        hashes.SHA256(),
        Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label.encode("ascii"),
        context=context,
        fixed=None,
    )
    return derivation.derive(key)


def proof(secret: bytes, report_data: bytes) -> bytes:
    """Return what shows that its maker knew ``secret`` when it made that evidence."""
    return hmac.digest(secret, report_data, "sha256")


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _aes_cfb(key: bytes, data: bytes) -> bytes:
    """Encrypt in full-block CFB mode from a zero IV, as part 1 §24.4 has it."""
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(_AES_BYTES))).encryptor()
    return encryptor.update(data) + encryptor.finalize()
