# SPDX-License-Identifier: Apache-2.0
"""What an attestation says, and what it is bound to, in each generation (kbs.md §3, §4, §19)."""

import hashlib
import json

import pytest

from cocos.errors import FormatError
from cocos.wire.kbs.generations import (
    NEWEST,
    Generation,
    bound_data,
    decode_attestation,
    encode_attestation,
)
from cocos.wire.kbs.protocol import (
    Attestation,
    EcKey,
    InitData,
    RuntimeData,
    TeeEvidence,
    report_data,
)

# The vectors of kbs.md §4.
NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY = EcKey(
    "P-256",
    "ECDH-ES+A256KW",
    "ItbHMuQKF46BQfSmKVtXEqob52tfWOps3H2Rc7tFydQ",
    "44S4FX8jGG7ZGBmiYuNXE6vIqOmrr1Qur7uUV2ZkX1A",
)
FULL = "72aa6d1ff1978bfd60a5c2772442dc25c2b322c2c26205abb6d3f6c7ae268461ae135a3ab829f51fe3f9f352c7565df7"
PAIR = "f4b39bba933d6e8ccbe043d31758e04973477676eab86cc3950560e75e4749e316fff72b913e526c729e200c13d52d44"
EVIDENCE = {"svn": "1", "report_data": "AA=="}
ATTESTATION = Attestation(RuntimeData(NONCE, KEY), TeeEvidence(EVIDENCE))
EARLY = [Generation.V0_1_1, Generation.V0_2_0]


def test_order() -> None:
    assert list(Generation) == ["0.1.1", "0.2.0", "0.4.0"]
    assert NEWEST == "0.4.0"
    assert NEWEST.older == (Generation.V0_2_0, Generation.V0_1_1)
    assert Generation.V0_1_1.older == ()


@pytest.mark.parametrize("generation", Generation)
def test_what_evidence_is_bound_to(generation: Generation) -> None:
    digest = report_data(bound_data(ATTESTATION, generation)).hex()
    assert digest == (FULL if generation is NEWEST else PAIR)


@pytest.mark.parametrize("generation", EARLY)
def test_early_digest_is_of_sorted_compact_json(generation: Generation) -> None:
    # As it was computed before RFC 8785 came in: the same bytes for what is hashed here.
    text = json.dumps(bound_data(ATTESTATION, generation), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha384(text.encode()).hexdigest() == PAIR


@pytest.mark.parametrize("generation", Generation)
def test_round_trip(generation: Generation) -> None:
    body = encode_attestation(ATTESTATION, generation)
    assert decode_attestation(body, generation, NONCE) == ATTESTATION


@pytest.mark.parametrize("generation", EARLY)
def test_early_form(generation: Generation) -> None:
    body = json.loads(encode_attestation(ATTESTATION, generation))
    assert list(body) == ["tee-pubkey", "tee-evidence"]
    assert body["tee-evidence"] == EVIDENCE
    assert body["tee-pubkey"]["kty"] == "EC"


@pytest.mark.parametrize("generation", EARLY)
def test_evidence_of_early_generations_is_any_json(generation: Generation) -> None:
    body = json.loads(encode_attestation(ATTESTATION, generation))
    for evidence in ('"text"', "null", "[]", "5"):
        raw = json.dumps({**body, "tee-evidence": "E"}).replace('"E"', evidence).encode()
        found = decode_attestation(raw, generation, NONCE)
        assert found.tee_evidence.primary_evidence == json.loads(evidence)


def test_no_generation_takes_the_form_of_another() -> None:
    """The form follows from the session; a body cannot make it weaker, or pretend more."""
    full, early = (encode_attestation(ATTESTATION, it) for it in (NEWEST, Generation.V0_2_0))
    with pytest.raises(FormatError, match=r"0\.4\.0"):
        decode_attestation(early, NEWEST, NONCE)
    for generation in EARLY:
        with pytest.raises(FormatError, match=str(generation)):
            decode_attestation(full, generation, NONCE)


@pytest.mark.parametrize("generation", EARLY)
def test_early_sessions_believe_nothing_that_is_not_bound(generation: Generation) -> None:
    body = json.loads(encode_attestation(ATTESTATION, generation))
    body["init-data"] = {"format": "toml", "body": "x"}
    body["runtime-data"] = {"nonce": "other", "tee-pubkey": {}}
    body["additional_evidence"] = '{"sampledevice":{}}'
    found = decode_attestation(json.dumps(body).encode(), generation, NONCE)
    assert found == ATTESTATION


def test_init_data_survives() -> None:
    shown = Attestation(
        ATTESTATION.runtime_data, TeeEvidence(EVIDENCE, "{}"), InitData("toml", "version")
    )
    assert decode_attestation(encode_attestation(shown, NEWEST), NEWEST, "") == shown


@pytest.mark.parametrize("generation", Generation)
@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[" * 10**5, b"\xff", b'{"tee-pubkey":{}}'])
def test_malformed(generation: Generation, body: bytes) -> None:
    with pytest.raises(FormatError):
        decode_attestation(body, generation, NONCE)


def test_a_repeated_member_is_refused() -> None:
    body = encode_attestation(ATTESTATION, NEWEST).replace(
        b'"nonce":', f'"nonce":"{NONCE}","nonce":'.encode()
    )
    with pytest.raises(FormatError, match="twice"):
        decode_attestation(body, NEWEST, NONCE)
