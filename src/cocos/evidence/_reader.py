# SPDX-License-Identifier: Apache-2.0
"""Reads bytes that somebody else wrote: never past the end, never silently short."""

from typing import Literal

from cocos.errors import FormatError


class Reader:
    """A position in bytes; each method consumes what it returns.

    Every method raises FormatError when fewer bytes are left than it needs.

    Args:
        data: The bytes.
        what: Their name for messages: "the quote".
        order: Byte order of numbers.
    """

    def __init__(self, data: bytes, what: str, order: Literal["big", "little"]) -> None:
        self._data = data
        self._what = what
        self._order = order
        self._position = 0
        self._filling: int | None = None

    @property
    def position(self) -> int:
        """Bytes consumed so far."""
        return self._position

    @property
    def left(self) -> int:
        """Bytes not consumed yet."""
        return len(self._data) - self._position

    def only_filling(self) -> bool:
        """Tell whether nothing is left but what fills a table up: zeros, or ones."""
        if self._filling is None:  # once: it is asked before every entry of a table
            self._filling = min(len(self._data.rstrip(fill)) for fill in (b"\0", b"\xff"))
        return self._position >= self._filling

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if count > self.left:
            raise FormatError(
                f"{self._what} is cut short: {count} bytes wanted at byte {self._position}, "
                f"{self.left} are left"
            )
        begin, self._position = self._position, self._position + count
        return self._data[begin : self._position]

    def u8(self) -> int:
        """Return an 8-bit number."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Return a 16-bit number."""
        return int.from_bytes(self.take(2), self._order)

    def u32(self) -> int:
        """Return a 32-bit number."""
        return int.from_bytes(self.take(4), self._order)

    def u64(self) -> int:
        """Return a 64-bit number."""
        return int.from_bytes(self.take(8), self._order)

    def sized16(self) -> bytes:
        """Return the bytes after their 16-bit length: a TPM2B structure."""
        return self.take(self.u16())

    def sized32(self, limit: int) -> bytes:
        """Return the bytes after their 32-bit length, at most ``limit``."""
        size = self.u32()
        if size > limit:
            raise FormatError(f"{self._what} has a part of {size} bytes; {limit} are allowed")
        return self.take(size)

    def expect(self, actual: int, expected: int, name: str) -> None:
        """Raise FormatError unless a number that was read is the one that must stand there."""
        if actual != expected:
            raise FormatError(f"{self._what} has {name} {actual:#x}, not {expected:#x}")

    def end(self) -> None:
        """Raise FormatError if bytes are left."""
        if self.left:
            raise FormatError(f"{self._what} has {self.left} bytes too many")
