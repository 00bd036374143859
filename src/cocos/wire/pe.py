# SPDX-License-Identifier: Apache-2.0
"""Just enough of PE/COFF: Authenticode digests and the sections of a unified kernel image."""

import hashlib
import struct
from dataclasses import dataclass

from cocos.errors import FormatError

_PE32_PLUS = 0x20B
_SECURITY = 4  # index of the directory with signatures
_SECTION = struct.Struct("<8sIIIIIIHHI")


@dataclass(frozen=True, slots=True)
class Section:
    """A section.

    Attributes:
        name: With its dot.
        size: How many bytes it has in memory.
        offset: Where its raw data start in the file.
        raw_size: How much of the file it takes, padding included.
    """

    name: bytes
    size: int
    offset: int
    raw_size: int


@dataclass(frozen=True, slots=True)
class Image:
    """A PE32+ image.

    Attributes:
        content: The whole file.
        sections: In the order of the section table.
    """

    content: bytes
    sections: tuple[Section, ...]
    _checksum: int
    _directory: int
    _headers: int

    @classmethod
    def parse(cls, content: bytes) -> "Image":
        """Parse a file.

        Raises:
            FormatError: not a PE32+ image.
        """
        try:
            return cls._parse(content)
        except (struct.error, ValueError) as error:
            raise FormatError("this is not an EFI program (PE32+)") from error

    @classmethod
    def _parse(cls, content: bytes) -> "Image":
        (start,) = struct.unpack_from("<I", content, 0x3C)
        magic, _, count, _, _, _, optional, _ = struct.unpack_from("<4sHHIIIHH", content, start)
        header = start + 24
        (kind,) = struct.unpack_from("<H", content, header)
        if content[:2] != b"MZ" or magic != b"PE\0\0" or kind != _PE32_PLUS:
            raise ValueError("magic")
        (size_of_headers,) = struct.unpack_from("<I", content, header + 60)
        sections = []
        for index in range(count):
            entry = _SECTION.unpack_from(content, header + optional + index * _SECTION.size)
            name, size, _, raw_size, offset = entry[:5]
            if offset + raw_size > len(content):
                raise ValueError("section beyond the end")
            sections.append(Section(name.rstrip(b"\0"), size, offset, raw_size))
        directory = header + 112 + _SECURITY * 8
        if directory + 8 > len(content):
            raise ValueError("header beyond the end")
        return cls(content, tuple(sections), header + 64, directory, size_of_headers)

    def section(self, name: str) -> bytes | None:
        """Return the bytes of the first section of that name, without padding, or None.

        Zeros that are in memory alone, as of ``.bss``, are left out.
        """
        for each in self.sections:
            if each.name == name.encode("ascii"):
                return self.content[each.offset : each.offset + min(each.size, each.raw_size)]
        return None

    def authenticode(self, algorithm: str = "sha256") -> bytes:
        """Return the digest that firmware measures: all but checksum and signatures."""
        content = self.content
        digest = hashlib.new(algorithm)
        digest.update(content[: self._checksum])
        digest.update(content[self._checksum + 4 : self._directory])
        digest.update(content[self._directory + 8 : self._headers])
        hashed = self._headers
        for section in sorted(self.sections, key=lambda each: each.offset):
            digest.update(content[section.offset : section.offset + section.raw_size])
            hashed += section.raw_size
        (signatures,) = struct.unpack_from("<I", content, self._directory + 4)
        digest.update(content[hashed : len(content) - signatures])
        return digest.digest()
