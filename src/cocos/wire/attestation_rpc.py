# SPDX-License-Identifier: Apache-2.0
"""What travels beside the messages between a key broker and an attestation service."""

from typing import Final

import msgspec

from cocos.errors import Finding, FormatError
from cocos.wire import json

FINDINGS: Final = "cocos-findings-bin"
"""Key of the trailing metadata of a refusal, and of a doubtful policy: why, as JSON."""

MAX_MESSAGE_BYTES: Final = 16 * 2**20
"""Evidence comes as base64 of JSON in a message."""

MAX_BYTES: Final = 6 * 1024
"""gRPC's peers take 8 KiB of metadata."""


def encode_findings(findings: tuple[Finding, ...]) -> bytes:
    """Encode as many findings as there is room for, the first ones first."""
    kept: list[Finding] = []
    for finding in findings:
        if len(json.encode([*kept, finding])) > MAX_BYTES:
            break
        kept.append(finding)
    return json.encode(kept)


def decode_findings(data: bytes) -> tuple[Finding, ...]:
    """Decode findings; none if they are malformed: a refusal stays one."""
    try:
        found: list[Finding] = json.decode(data, list[Finding], "findings")
    except (FormatError, msgspec.MsgspecError):
        return ()
    return tuple(found)
