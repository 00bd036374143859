# SPDX-License-Identifier: Apache-2.0
"""base64url without padding, the only base64 of JOSE (RFC 7515 §2)."""

import base64
import binascii

from cocos.errors import FormatError


def encode(data: bytes) -> str:
    """Encode as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: object, what: str) -> bytes:
    """Decode base64url without padding; each byte string has exactly one accepted spelling.

    Args:
        text: Member of a JSON object, of whatever type it is.
        what: What it is, for the message.

    Raises:
        FormatError: not text, another alphabet, padding, or unused bits that are not zero.
    """
    if not isinstance(text, str):
        raise FormatError(f"{what} is missing or is not text")
    try:
        raw = text.encode("ascii")
        data = base64.b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{what} is not base64url without padding") from error
    if encode(data) != text:
        raise FormatError(f"{what} is not base64url without padding")
    return data
