# SPDX-License-Identifier: Apache-2.0
"""What Trustee's protocols, gRPC and REST alike, carry as text: checked and decoded."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final

from cocos._types import JsonObject, ReportData
from cocos.attestation_service.policies import POLICY_ID
from cocos.attestation_service.request import AppraisalRequest, Attester
from cocos.crypto import base64url
from cocos.errors import FormatError
from cocos.wire import json
from cocos.wire.kbs.protocol import InitData, Tee

MAX_ATTESTERS: Final = 64
_HASHES: Final = ("sha256", "sha384", "sha512")


def check_count(attesters: Sequence[object]) -> None:
    """Raise FormatError if nobody or too many are to be appraised."""
    if not 0 < len(attesters) <= MAX_ATTESTERS:
        raise FormatError(f"evidence of 1 to {MAX_ATTESTERS} attesters is appraised at a time")


def appraisal_request(attesters: Sequence[Attester], policy_ids: Sequence[str]) -> AppraisalRequest:
    """Return the request; of several policies the first one counts."""
    return AppraisalRequest(tuple(attesters), policy_ids[0] if policy_ids else POLICY_ID)


def attester(
    tee: str,
    evidence: str,
    *,
    raw: str | None,
    structured: JsonObject | None,
    algorithm: str | None,
    init_data: InitData | None,
    init_data_digest: str | None,
    state: str | None = None,
    insecure_allow_unbound: bool = False,
) -> Attester:
    """Return one attester's evidence and what it must be bound to.

    Raises:
        FormatError: a member is malformed, or the evidence would be bound to nothing.
    """
    text = base64url.decode(evidence, "the evidence")
    decoded: Any = json.decode_strict(text, Any, "the evidence")
    digest = None
    if init_data_digest is not None:
        digest = base64url.decode(init_data_digest, "the digest of the init data")
    unbound = insecure_allow_unbound and raw is None and structured is None
    bound = None if unbound else _report_data(raw, structured, algorithm or "sha384")
    return Attester(tee_of(tee), decoded, bound, structured, init_data, digest, state)


def tee_of(name: str) -> Tee:
    """Return the TEE of that name, or raise FormatError."""
    try:
        return Tee(name)
    except ValueError as error:
        raise FormatError(f"{name[:32]!r} is no TEE", hint=f"one of {', '.join(Tee)}") from error


def _report_data(raw: str | None, structured: JsonObject | None, algorithm: str) -> ReportData:
    if raw is not None:
        return ReportData(base64url.decode(raw, "the runtime data"))
    if structured is None:
        # The guest components' attestation agent asks for such tokens.
        raise FormatError(
            "evidence without runtime data is not appraised: "
            "nothing would tell it from a recorded one",
            hint="bind it to a nonce, and send that as runtime_data",
        )
    if algorithm not in _HASHES:
        raise FormatError(f"{algorithm[:32]!r} is no hash algorithm of runtime data")
    return ReportData(hashlib.new(algorithm, json.canonical(structured)).digest())
