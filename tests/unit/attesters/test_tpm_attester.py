# SPDX-License-Identifier: Apache-2.0
"""The TPM attester's decisions; what a real TPM does is in the integration tests."""

import base64
import hashlib
import hmac
import struct
from typing import Any

import pytest

from cocos import attesters
from cocos.attesters import AttestationKey, Devices, SignedQuote, TpmAttester
from cocos.errors import FormatError, IntegrityError, ProtocolError, StateError, UnsupportedError
from cocos.evidence.tpm import Quote, pcr_digest
from cocos.wire.kbs.protocol import Tee

DIGEST = hashlib.sha256(b"init data").digest()
SECRET = bytes(range(32))
CHALLENGE = {"tpm": {"credential_blob": "AAEC", "encrypted_secret": "AwQF"}}


class MemoryTpm:
    """PCRs in memory; ``disturb`` more extensions happen, each between quote and read."""

    def __init__(self, *, certificate: bytes | None = b"certificate", disturb: int = 0) -> None:
        self.values = [bytes(32)] * 24
        self.certificate = certificate
        self.disturb = disturb
        self.activated: list[tuple[bytes, bytes]] = []
        self.reads = 24

    async def attestation_key(self) -> AttestationKey:
        return AttestationKey(b"public", b"spki")

    async def ek_certificate(self) -> bytes | None:
        return self.certificate

    async def activate(self, credential_blob: bytes, encrypted_secret: bytes) -> bytes:
        self.activated.append((credential_blob, encrypted_secret))
        return SECRET

    async def quote(self, data: bytes) -> SignedQuote:
        head = struct.pack(">IHH", 0xFF544347, 0x8018, 0) + struct.pack(">H", len(data)) + data
        selection = struct.pack(">IHB3s", 1, 0x000B, 3, b"\xff\xff\xff")
        digest = pcr_digest(tuple(self.values))
        message = head + bytes(25) + selection + struct.pack(">H", 32) + digest
        return SignedQuote(message, b"signature")

    async def pcrs(self) -> tuple[bytes, ...]:
        if self.disturb:
            self.disturb -= 1
            await self.extend(10, bytes(32))
        return tuple(self.values[: self.reads])

    async def extend(self, index: int, digest: bytes) -> None:
        self.values[index] = hashlib.sha256(self.values[index] + digest).digest()

    async def boot_log(self) -> bytes:
        return b"boot log"

    async def command_line(self) -> str:
        return "quiet"


def decoded(evidence: Any, *path: str) -> bytes:
    for name in path:
        evidence = evidence[name]
    return base64.b64decode(evidence, validate=True)


async def test_a_tpm_is_found_before_sample_evidence_is_thought_of() -> None:
    found = await attesters.detect(Devices(tpm=MemoryTpm()), insecure_sample=True)
    assert await found.tee() is Tee.TPM
    assert not found.insecure


async def test_evidence_has_quote_logs_and_command_line() -> None:
    tpm = MemoryTpm()
    evidence = await TpmAttester(tpm).evidence(bytes(range(48)), events=b"events")
    quote = Quote.parse(decoded(evidence, "tpm_quote", "message"))
    assert quote.extra_data == bytes(range(48)), "all of it"
    assert evidence["tpm_quote"]["pcrs"] == tuple(["00" * 32] * 24)
    assert decoded(evidence, "tpm_quote", "signature") == b"signature"
    assert decoded(evidence, "ak_public") == b"spki"
    assert decoded(evidence, "event_log") == b"boot log"
    assert decoded(evidence, "aael") == b"events"
    assert evidence["cmdline"] == "quiet"
    assert "credential" not in evidence
    assert tpm.activated == []


async def test_a_challenge_is_answered_with_a_proof_and_not_with_the_secret() -> None:
    tpm = MemoryTpm()
    evidence = await TpmAttester(tpm).evidence(b"report data", CHALLENGE)
    assert tpm.activated == [(b"\0\1\2", b"\3\4\5")]
    proof = hmac.digest(SECRET, b"report data", "sha256")
    assert decoded(evidence, "credential", "proof") == proof
    assert base64.b64encode(SECRET).decode() not in str(evidence)


@pytest.mark.parametrize("challenge", [None, {}, {"selected-hash-algorithm": "sha384"}])
async def test_other_kbs_challenge_no_tpm(challenge: dict[str, Any] | None) -> None:
    evidence = await TpmAttester(MemoryTpm()).evidence(b"report data", challenge)
    assert "credential" not in evidence


@pytest.mark.parametrize(
    "member",
    [
        *[1, "", [], {}, {"credential_blob": "AAEC"}],
        {"credential_blob": "AAEC", "encrypted_secret": 1},
        {"credential_blob": "AAEC", "encrypted_secret": "A"},
        {"credential_blob": "AA EC", "encrypted_secret": "AwQF"},
    ],
)
async def test_a_malformed_challenge_is_refused(member: Any) -> None:
    tpm = MemoryTpm()
    with pytest.raises(FormatError, match="challenge"):
        await TpmAttester(tpm).evidence(b"", {"tpm": member})
    assert tpm.activated == []


async def test_the_kbs_is_told_which_key_to_challenge() -> None:
    assert await TpmAttester(MemoryTpm()).auth_params() == {
        "tpm": {
            "ek_certificate": base64.b64encode(b"certificate").decode(),
            "ak_public": base64.b64encode(b"public").decode(),
        }
    }
    assert await TpmAttester(MemoryTpm(certificate=None)).auth_params() == {}


async def test_quote_and_pcrs_are_of_one_moment() -> None:
    tpm = MemoryTpm(disturb=3)
    evidence = await TpmAttester(tpm).evidence(b"")
    quote = Quote.parse(decoded(evidence, "tpm_quote", "message"))
    values = tuple(bytes.fromhex(value) for value in evidence["tpm_quote"]["pcrs"])
    assert quote.pcr_digest == pcr_digest(values)
    with pytest.raises(StateError, match="faster"):
        await TpmAttester(MemoryTpm(disturb=100)).evidence(b"")


async def test_a_tpm_without_all_pcrs_is_refused() -> None:
    tpm = MemoryTpm()
    tpm.reads = 8
    with pytest.raises(ProtocolError, match="8 SHA-256 PCRs"):
        await TpmAttester(tpm).evidence(b"")


async def test_report_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match="65 bytes"):
        await TpmAttester(MemoryTpm()).evidence(bytes(65))


async def test_init_data_goes_to_pcr_8_once() -> None:
    # The example of the guest components.
    digest = bytes.fromhex("8505e4e25e50a27c5dc8147af88efbece627fbea55291911eff832d9ee127781")
    tpm = MemoryTpm()
    for _ in range(3):
        await TpmAttester(tpm).bind_init_data(digest)
    wanted = "bddaccb9c52249e97a31baea61b7d91be8221a16e703d92148d04fb8e9c1dfdd"
    assert tpm.values[8].hex() == wanted
    with pytest.raises(IntegrityError, match=wanted):
        await TpmAttester(tpm).bind_init_data(DIGEST)
    assert tpm.values[8].hex() == wanted


async def test_a_pcr_8_that_somebody_else_used_is_noticed() -> None:
    tpm = MemoryTpm()
    await tpm.extend(8, bytes(32))
    with pytest.raises(IntegrityError):
        await TpmAttester(tpm).bind_init_data(DIGEST)
    racing = MemoryTpm()
    extend = racing.extend

    class Racing(MemoryTpm):
        async def extend(self, index: int, digest: bytes) -> None:
            await extend(8, bytes(32))
            await extend(index, digest)

    other = Racing()
    other.values = racing.values
    with pytest.raises(IntegrityError):
        await TpmAttester(other).bind_init_data(DIGEST)


@pytest.mark.parametrize("size", [31, 48, 64])
async def test_init_data_of_another_hash_cannot_be_bound(size: int) -> None:
    with pytest.raises(UnsupportedError) as caught:
        await TpmAttester(MemoryTpm()).bind_init_data(bytes(size))
    assert "sha256" in (caught.value.hint or "")


@pytest.mark.parametrize("index", [-1, *range(14), *range(15, 25)])
async def test_runtime_events_have_one_register(index: int) -> None:
    tpm = MemoryTpm()
    attester = TpmAttester(tpm)
    with pytest.raises(UnsupportedError, match="PCR 14"):
        await attester.extend_register(index, DIGEST)
    with pytest.raises(UnsupportedError, match="PCR 14"):
        await attester.read_register(index)
    assert tpm.values == [bytes(32)] * 24
    await attester.extend_register(14, DIGEST)
    assert await attester.read_register(14) == hashlib.sha256(bytes(32) + DIGEST).digest()
