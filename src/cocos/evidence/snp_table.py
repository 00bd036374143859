# SPDX-License-Identifier: Apache-2.0
"""The certificate table that an SNP host puts beside a report (GHCB specification, §4.1.8.1).

Entries of GUID, u32 offset and u32 length, little-endian, up to one of zeros; offsets are
from the begin of the table. The host writes it: nothing in it is to be believed.
"""

import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cocos.errors import FormatError
from cocos.evidence._reader import Reader

MOST_ENTRIES: Final = 16
_GUID_BYTES: Final = 16
KINDS: Final = MappingProxyType(
    {
        uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
        uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
        uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
        uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
        uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"): "CRL",
    }
)
"""GUID → name, as the guest components write it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One entry.

    Attributes:
        guid: What it is; hosts write the bytes in the order of the text.
        data: Mostly DER, or PEM.
    """

    guid: uuid.UUID
    data: bytes = field(repr=False)

    @property
    def kind(self) -> str | None:
        """Name of what it is; None if nobody has named it."""
        return KINDS.get(self.guid)


def parse_table(data: bytes) -> tuple[Certificate, ...]:
    """Parse a table; no bytes are no certificates.

    Raises:
        FormatError: cut short, without an end, or an entry lies outside of it.
    """
    found: list[Certificate] = []
    reader = Reader(data, "the certificate table", "little")
    while data:
        guid, offset, length = reader.take(_GUID_BYTES), reader.u32(), reader.u32()
        if not any(guid):
            break
        if len(found) == MOST_ENTRIES:
            raise FormatError(f"the certificate table has more than {MOST_ENTRIES} entries")
        if offset + length > len(data):
            raise FormatError(
                f"the certificate table, {len(data)} bytes, has an entry of {length} bytes "
                f"at byte {offset}"
            )
        found.append(Certificate(uuid.UUID(bytes=guid), data[offset : offset + length]))
    return tuple(found)
