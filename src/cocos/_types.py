# SPDX-License-Identifier: Apache-2.0
"""Names for values that must not be mixed up.

A value of one of these types has passed the check that its name promises.
"""

from typing import Any, NewType, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A decoded JSON object at the edge of a parser."""

Nonce = NewType("Nonce", str)
"""Challenge of a handshake: base64 text exactly as it was sent."""

ReportData = NewType("ReportData", bytes)
"""Digest of the canonical runtime data that evidence must carry: 48 or 64 bytes."""

UnverifiedToken = NewType("UnverifiedToken", str)
"""A compact JWT whose signature nobody has checked."""

VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])
"""Claims of a token or of evidence after every check has passed."""
