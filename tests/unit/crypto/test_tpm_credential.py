# SPDX-License-Identifier: Apache-2.0
"""MakeCredential where no TPM is asked; tests/integration/tpm has one recover the secret."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos.crypto.tpm_credential import kdfa, make_credential
from cocos.errors import FormatError

NAME = b"\0\x0b" + bytes(32)


def endorsement_key(bits: int) -> rsa.RSAPublicKey:
    return rsa.generate_private_key(65537, bits).public_key()


@pytest.mark.parametrize("size", [16, 32, 33, 64, 128])
def test_a_key_by_the_letter_of_the_specification(size: int) -> None:
    """K(i) = HMAC(key, i || label || 0 || context || bits), one after the other."""
    rest = b"STORAGE\0" + NAME + (8 * size).to_bytes(4, "big")
    blocks = (
        hmac.digest(b"seed", number.to_bytes(4, "big") + rest, hashlib.sha256)
        for number in range(1, 5)
    )
    assert kdfa(b"seed", "STORAGE", NAME, size) == b"".join(blocks)[:size]


@pytest.mark.parametrize("length", [0, 33, 64])
def test_a_secret_that_no_tpm_would_return(length: int) -> None:
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        make_credential(endorsement_key(2048), NAME, bytes(length))


@pytest.mark.parametrize("bits", [1024, 2056, 3072])
def test_an_endorsement_key_of_another_template(bits: int) -> None:
    with pytest.raises(FormatError, match=f"has {bits} bits"):
        make_credential(endorsement_key(bits), NAME, bytes(32))
