# SPDX-License-Identifier: Apache-2.0
"""Unified kernel images: named sections of a PE file, of which we read single ones.

PE format: the offset of the header stands at 0x3C; 4 bytes of signature, 20 of file header
(number of sections at 2, size of the optional header at 16), the optional header, and per
section 40 bytes (name 8, virtual size 4, address 4, size 4, offset 4, …), little-endian.
"""

import struct

from cocos.errors import FormatError

_FILE_HEADER = 24  # with the signature


def section(image: bytes, name: str) -> bytes | None:
    """Return the content of a section without its padding, or None if there is none.

    Raises:
        FormatError: not a PE file, or cut off.
    """
    try:
        (start,) = struct.unpack_from("<I", image, 0x3C)
        if image[:2] != b"MZ" or image[start : start + 4] != b"PE\0\0":
            raise FormatError("the kernel image is no PE file")
        count, optional = struct.unpack_from("<2xH12xH", image, start + 4)
        for number in range(count):
            at = start + _FILE_HEADER + optional + 40 * number
            label, size, stored, offset = struct.unpack_from("<8sI4xII", image, at)
            if label.rstrip(b"\0") == name.encode("ascii"):
                if offset + stored > len(image):
                    raise FormatError("the kernel image is cut off")
                return image[offset : offset + min(size, stored)]
    except struct.error as error:
        raise FormatError("the kernel image is cut off") from error
    return None
