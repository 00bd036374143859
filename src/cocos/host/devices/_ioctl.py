# SPDX-License-Identifier: Apache-2.0
"""ioctl as the kernel numbers it (include/uapi/asm-generic/ioctl.h)."""

import contextlib
import ctypes
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from cocos.errors import UnreachableError

WRITE: Final = 1
READ: Final = 2

Ioctl: TypeAlias = Callable[[int, int, bytearray], int]
"""Descriptor, request, argument, which the kernel changes; raises OSError."""


def request(direction: int, group: str, number: int, size: int) -> int:
    """Return the number of a request: _IOC."""
    return direction << 30 | size << 16 | ord(group) << 8 | number


def call(descriptor: int, number: int, argument: bytearray) -> int:
    """Do a request."""
    return int(fcntl.ioctl(descriptor, number, argument, True))


class Buffer:
    """Memory that the kernel is told the address of.

    Args:
        content: What stands in it first; says how long it is.
    """

    def __init__(self, content: bytes) -> None:
        self._memory = ctypes.create_string_buffer(content, len(content))

    @property
    def address(self) -> int:
        """Where it is, as long as we are."""
        return ctypes.addressof(self._memory)

    def __bytes__(self) -> bytes:
        return self._memory.raw


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Have a device open.

    Raises:
        UnreachableError: it cannot be opened, or a request within fails.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UnreachableError(
            f"{path} does not answer: {error.strerror or error}",
            hint="is the attestation agent root?",
        ) from error
