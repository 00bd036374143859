# SPDX-License-Identifier: Apache-2.0
"""Which computation is meant.

Ids are chosen by people, who use them again, and times prove nothing: a computation is its id
and the digest of its manifest.
"""

from typing import NamedTuple

from cocos.wire.manifest.computation import Computation


class Identity(NamedTuple):
    """Id and digest of the manifest, hex."""

    id: str
    manifest: str

    @classmethod
    def of(cls, computation: Computation) -> "Identity":
        """Return a computation's."""
        return cls(computation.id, computation.digest().hex())

    @classmethod
    def received(cls, computation_id: str, manifest: bytes) -> "Identity":
        """Return what a message names, whose digest is bytes."""
        return cls(computation_id, manifest.hex())

    @property
    def digest(self) -> bytes:
        """Digest of the manifest, as messages have it."""
        return bytes.fromhex(self.manifest)
