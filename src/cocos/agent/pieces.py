# SPDX-License-Identifier: Apache-2.0
"""Manifests that arrive in pieces."""

from cocos.errors import TooLargeError
from cocos.wire.manifest.computation import MAX_MANIFEST_BYTES

MAX_PARTIAL = 4


class Pieces:
    """Puts the pieces of messages together, per id; for the life of one stream.

    A stream that breaks takes its half-sent messages with it.
    """

    def __init__(self) -> None:
        self._partial: dict[str, bytearray] = {}

    def add(self, identity: str, data: bytes, *, last: bool) -> bytes | None:
        """Add a piece; return the whole message if it was the last.

        Raises:
            TooLargeError: the message is larger than a manifest may be, or too many have
                been begun; what there was of it is dropped.
        """
        if identity not in self._partial and len(self._partial) >= MAX_PARTIAL:
            raise TooLargeError(f"more than {MAX_PARTIAL} manifests were begun and not ended")
        buffer = self._partial.setdefault(identity, bytearray())
        buffer += data
        if len(buffer) > MAX_MANIFEST_BYTES:
            del self._partial[identity]
            raise TooLargeError(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
        if not last:
            return None
        return bytes(self._partial.pop(identity))
