# SPDX-License-Identifier: Apache-2.0
"""Runtime events as the guest components measure and log them (AAEL)."""

import struct
from typing import Final

from cocos.errors import FormatError
from cocos.evidence.event_details import AAEL_MAGIC
from cocos.evidence.eventlog import ALGORITHMS, EVENT_TAG, SHA256

_IDS: Final = {name: number for number, name in ALGORITHMS.items()}


def tagged_event(domain: str, operation: str, content: str) -> bytes:
    """Return the bytes that are hashed for one event.

    u32 magic, u32 length, both little-endian, then ``domain SP operation SP content`` in
    UTF-8. Readers split at the spaces and log lines at newlines, therefore neither may
    stand where it would move the border between two members.

    Raises:
        FormatError: a member is empty, or holds a character that it must not.
    """
    for name, text in (("domain", domain), ("operation", operation)):
        if not text or any(char.isspace() for char in text):
            raise FormatError(f"the {name} of an event must be a word without spaces")
    if any(char in "\r\n\0" for char in content):
        raise FormatError("the content of an event must be one line")
    try:
        event = f"{domain} {operation} {content}".encode()
    except UnicodeEncodeError as error:
        raise FormatError("an event must be valid Unicode") from error
    return struct.pack("<II", AAEL_MAGIC, len(event)) + event


def record(register: int, digest: bytes, event: bytes, *, algorithm: str = SHA256) -> bytes:
    """Return the log's entry of one event: a little-endian TCG_PCR_EVENT2.

    Args:
        register: Number that the verifier knows the register by.
        digest: What the register was extended with.
        event: As of :func:`tagged_event`.
        algorithm: Name of the hash.
    """
    head = struct.pack("<IIIH", register, EVENT_TAG, 1, _IDS[algorithm])
    return head + digest + struct.pack("<I", len(event)) + event
