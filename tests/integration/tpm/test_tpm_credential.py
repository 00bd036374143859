# SPDX-License-Identifier: Apache-2.0
"""Our MakeCredential against a real TPM's ActivateCredential."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from _tpm import Tpm, TpmCa, b64, running_tpm
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from cocos._types import JsonObject
from cocos.crypto.tpm_credential import make_credential
from cocos.errors import ProcessError
from cocos.evidence.tpm import ALG_RSASSA, Attributes, RsaPublic

pytestmark = pytest.mark.integration

SECRET = os.urandom(32)


@pytest.fixture
async def tpm(tmp_path: Path) -> AsyncIterator[Tpm]:
    async with running_tpm(await TpmCa(tmp_path / "ca").manufacture(), tmp_path / "tpm") as found:
        yield found


def challenge(tpm: Tpm, name: bytes, secret: bytes = SECRET) -> JsonObject:
    key = x509.load_der_x509_certificate(tpm.read("ek.der")).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    made = make_credential(key, name, secret)
    return {
        "credential_blob": b64(made.credential_blob),
        "encrypted_secret": b64(made.encrypted_secret),
    }


async def test_the_tpm_recovers_the_secret_for_its_own_key_only(tpm: Tpm) -> None:
    public = RsaPublic.parse(tpm.read("ak.pub"))
    assert public.name == tpm.ak_name
    assert public.scheme == ALG_RSASSA
    assert public.attributes & Attributes.RESTRICTED
    assert await tpm.activate(challenge(tpm, public.name)) == SECRET
    assert await tpm.activate(challenge(tpm, public.name, b"x")) == b"x"
    with pytest.raises(ProcessError):
        await tpm.activate(challenge(tpm, public.name[:-1] + bytes([public.name[-1] ^ 1])))
