# SPDX-License-Identifier: Apache-2.0
"""Devices of confidential processors, as attesters see them.

Every method raises UnreachableError when the device does not answer, and ProtocolError
when it answers something else than asked.
"""

from dataclasses import dataclass
from typing import Final, Protocol

REPORT_DATA_BYTES: Final = 64
"""What the processors take: exactly so many bytes."""


@dataclass(frozen=True, slots=True)
class SnpReport:
    """What the secure processor signed, and what the host put beside it.

    Attributes:
        report: ATTESTATION_REPORT, 1184 bytes.
        certificates: The host's certificate table as it stands; empty without one.
    """

    report: bytes
    certificates: bytes


class SnpDevice(Protocol):
    """The secure processor of an AMD machine."""

    async def report(self, data: bytes) -> SnpReport:
        """Return a report that carries ``data``, :data:`REPORT_DATA_BYTES` bytes."""
        ...


class TdxDevice(Protocol):
    """The TDX module of an Intel machine, and the firmware's log of what it measured.

    Attributes:
        extends: Whether the kernel lets us extend a runtime register.
    """

    extends: bool

    async def quote(self, data: bytes) -> bytes:
        """Return a quote that carries ``data``, :data:`REPORT_DATA_BYTES` bytes."""
        ...

    async def td_report(self) -> bytes:
        """Return a TDREPORT, 1024 bytes: what a quote says, readable here only."""
        ...

    async def extend(self, register: int, digest: bytes) -> None:
        """Extend RTMR 0 to 3 with a SHA-384 digest."""
        ...

    async def boot_log(self) -> bytes:
        """Return the firmware's event log (CCEL); empty if the kernel shows none."""
        ...


def filled(data: bytes, size: int = REPORT_DATA_BYTES) -> bytes:
    """Return ``data`` as the processors' fields hold it: with zeros after it, or cut."""
    return data[:size].ljust(size, b"\0")
