# SPDX-License-Identifier: Apache-2.0
"""Evidence that an operator takes although it is bound to nothing: never somebody's handshake."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from _intel import NOW, Intel, b64, enclave, sgx_tcb_info, td
from _verified import verified
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from cocos._clock import system_clock
from cocos.errors import EvidenceError
from cocos.verifiers import Expected, Verifier, verifier_table
from cocos.verifiers.sample import InsecureSampleDeviceVerifier, InsecureSampleVerifier
from cocos.verifiers.sgx import SgxVerifier
from cocos.verifiers.tdx import TdxVerifier
from cocos.verifiers.tpm import Authorities, TpmVerifier
from cocos.wire.kbs.protocol import Tee

KEY = rsa.generate_private_key(65537, 2048)
SPKI = KEY.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
TDX, SGX = Intel(), Intel()
SGX.tcb_info = sgx_tcb_info()
SGX.qe_identity |= {"id": "QE"}
HANDSHAKE = hashlib.sha384(b"session").digest()
UNBOUND = Expected.of(None, None, {"trusted_ak": [b64(SPKI)]})


def sample(carried: bytes) -> Any:
    return {"svn": "1", "report_data": b64(carried)}


def tpm_quote(carried: bytes) -> Any:
    pcrs = [bytes(32)] * 24
    message = b"\xffTCG\x80\x18\0\0" + len(carried).to_bytes(2) + carried + bytes(25)
    message += b"\0\0\0\1\0\x0b\3\xff\xff\xff\0\x20" + hashlib.sha256(b"".join(pcrs)).digest()
    signature = b"\0\x14\0\x0b\1\0" + KEY.sign(message, padding.PKCS1v15(), hashes.SHA256())
    quote = {"signature": b64(signature), "message": b64(message)}
    return {"tpm_quote": {**quote, "pcrs": [pcr.hex() for pcr in pcrs]}, "ak_public": b64(SPKI)}


def tdx(carried: bytes) -> Any:
    return {"quote": b64(TDX.quote(td(carried.ljust(64, b"\0")))), "cc_eventlog": None}


def sgx(carried: bytes) -> Any:
    return {"quote": b64(SGX.quote(enclave(carried.ljust(64, b"\0")), version=3))}


CASES: dict[Tee, tuple[Verifier, Callable[[bytes], Any]]] = {
    Tee.SAMPLE: (InsecureSampleVerifier(), sample),
    Tee.SAMPLE_DEVICE: (InsecureSampleDeviceVerifier(), sample),
    Tee.TPM: (TpmVerifier(Authorities([]), clock=lambda: NOW), tpm_quote),
    Tee.TDX: (TdxVerifier(TDX.held(), clock=lambda: NOW, insecure_root=TDX.root), tdx),
    Tee.SGX: (SgxVerifier(SGX.held("sgx"), clock=lambda: NOW, insecure_root=SGX.root), sgx),
}


@pytest.mark.parametrize("tee", CASES)
async def test_nothing_and_zeros_are_unbound(tee: Tee) -> None:
    verifier, made = CASES[tee]
    for nothing in (b"", bytes(32)):
        found = await verified(verifier, made(nothing), UNBOUND)
        # Zeros, in hexadecimal or base64.
        assert not found["report_data"].strip("0A=")


@pytest.mark.parametrize("tee", CASES)
@pytest.mark.parametrize(
    "carried", [HANDSHAKE, HANDSHAKE[:32], b"\0" * 47 + b"\1", b"\1" + b"\0" * 47]
)
async def test_what_was_made_for_a_handshake_is_not(tee: Tee, carried: bytes) -> None:
    verifier, made = CASES[tee]
    with pytest.raises(EvidenceError) as caught:
        await verified(verifier, made(carried), UNBOUND)
    assert f"{tee}.report_data" in {finding.check for finding in caught.value.findings}


async def test_whoever_says_it_tells_them_apart_is_tested_here() -> None:
    table = verifier_table(insecure_allow_sample=True, clock=system_clock)
    said = set()
    for tee in Tee:
        try:
            if table.find(tee).takes_unbound:
                said.add(tee)
        except EvidenceError:
            continue
    assert said <= CASES.keys()
    assert Verifier.takes_unbound is False


def test_bound_is_still_bound() -> None:
    """The flag opens the way for evidence without runtime data, and for no other."""
    nothing = UNBOUND.report_data
    assert nothing == b""
    with pytest.raises(EvidenceError, match="nonce"):
        Expected(nothing)
    with pytest.raises(EvidenceError, match="nonce"):
        Expected.of(nothing, None, {})


@given(st.binary(max_size=64))
def test_unbound_is_what_has_no_bit_set(carried: bytes) -> None:
    assert UNBOUND.binds(carried) == (int.from_bytes(carried) == 0)
