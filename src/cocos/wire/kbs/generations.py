# SPDX-License-Identifier: Apache-2.0
"""The generations of the KBS protocol, and what an attestation looks like in each.

A session speaks one generation, the one that its Request named: the form of its
attestation, what evidence is bound to and the form of its resources follow from it, never
from the bodies themselves. So nobody on the way can make a session weaker than it began.
"""

import enum
from typing import Any

import msgspec

from cocos._types import JsonObject
from cocos.wire import json
from cocos.wire.kbs.protocol import (
    Attestation,
    RuntimeData,
    TeeEvidence,
    TeePublicKey,
    runtime_data,
)


class Generation(enum.StrEnum):
    """A version of the protocol, as a Request names it; oldest first."""

    V0_1_1 = "0.1.1"
    V0_2_0 = "0.2.0"
    V0_4_0 = "0.4.0"

    @property
    def composite(self) -> bool:
        """Whether an attestation has room for devices and init data, and binds them."""
        return self is Generation.V0_4_0

    @property
    def header_sealed(self) -> bool:
        """Whether a resource's header is authenticated, as RFC 7516 has it."""
        return self is not Generation.V0_1_1

    @property
    def older(self) -> "tuple[Generation, ...]":
        """The generations before this one, newest first."""
        known = list(Generation)
        return tuple(reversed(known[: known.index(self)]))


NEWEST = Generation.V0_4_0


class EarlyAttestation(msgspec.Struct, frozen=True, rename="kebab"):
    """Body of ``POST /kbs/v0/attest`` before 0.4.0; the nonce is the session's."""

    tee_pubkey: TeePublicKey
    tee_evidence: Any


def decode_attestation(body: bytes, generation: Generation, nonce: str) -> Attestation:
    """Decode an attestation.

    Args:
        body: As received.
        generation: Of the session.
        nonce: Of the session; only early attestations, which name none, need it.

    Raises:
        FormatError: not an attestation of this generation.
    """
    what = f"the attestation of protocol {generation}"
    if generation.composite:
        full: Attestation = json.decode_strict(body, Attestation, what)
        return full
    early: EarlyAttestation = json.decode_strict(body, EarlyAttestation, what)
    return Attestation(RuntimeData(nonce, early.tee_pubkey), TeeEvidence(early.tee_evidence))


def encode_attestation(attestation: Attestation, generation: Generation) -> bytes:
    """Encode an attestation as its generation has it.

    Devices and init data have no place before 0.4.0: whoever drops them says so.
    """
    if generation.composite:
        return json.encode(attestation)
    return json.encode(
        EarlyAttestation(
            attestation.runtime_data.tee_pubkey, attestation.tee_evidence.primary_evidence
        )
    )


def bound_data(attestation: Attestation, generation: Generation) -> JsonObject:
    """Return the object whose digest the primary attester's evidence carries."""
    runtime, additional = attestation.runtime_data, attestation.tee_evidence.additional_evidence
    return runtime_data(
        runtime.nonce, runtime.tee_pubkey, additional if generation.composite else None
    )
