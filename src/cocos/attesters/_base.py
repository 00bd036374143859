# SPDX-License-Identifier: Apache-2.0
"""What every attester can do."""

import abc
from typing import Any, ClassVar, Self

from cocos.errors import FormatError, UnsupportedError
from cocos.wire.kbs import Tee

MAX_REPORT_DATA = 64
"""Bytes of report data that the hardware has room for."""


class Attester(abc.ABC):
    """Makes evidence about the machine that it runs on.

    Attributes:
        kind: The TEE whose evidence this attester makes.
        insecure: The evidence proves nothing; the attester is used only when allowed by name.
    """

    kind: ClassVar[Tee]
    insecure: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    async def detect(cls) -> Self | None:
        """Return an attester if this machine has what it needs, else None."""

    async def tee(self) -> Tee:
        """Return the TEE whose evidence this is."""
        return self.kind

    @abc.abstractmethod
    async def evidence(self, report_data: bytes) -> Any:
        """Return fresh evidence, as JSON.

        Args:
            report_data: Up to :data:`MAX_REPORT_DATA` bytes that the evidence must carry.

        Raises:
            FormatError: ``report_data`` is too long.
        """

    async def additional_tees(self) -> tuple[Tee, ...]:
        """Return the devices that can be attested beside the CPU."""
        return ()

    async def additional_evidence(self, report_data: bytes) -> str:  # noqa: ARG002
        """Return JSON text, TEE → evidence of each device; empty without devices.

        Args:
            report_data: As for :meth:`evidence`; the devices' differs from the CPU's.
        """
        return ""

    async def extend_register(self, index: int, event: bytes) -> None:
        """Hash an event into a runtime register that software cannot reset.

        Args:
            index: Register as a PCR number; the platform maps it to its own.
            event: What is hashed, with the hash of the platform.

        Raises:
            UnsupportedError: the platform has no such registers.
        """
        raise UnsupportedError(
            f"{self.kind} has no runtime measurement register (asked for {index}, "
            f"event of {len(event)} bytes)"
        )

    async def bind_init_data(self, digest: bytes) -> None:
        """Bind what the host passed in: compare with the hardware's field, or measure.

        Args:
            digest: Hash of the init data, with the hash that the init data names.

        Raises:
            IntegrityError: the hardware was started with other init data.
            UnsupportedError: the platform has no place for it.
        """
        raise UnsupportedError(
            f"{self.kind} cannot bind init data (digest of {len(digest)} bytes)",
            hint="evidence of this platform does not prove what the host passed in",
        )


def check_report_data(report_data: bytes) -> None:
    """Raise FormatError if the hardware has no room for ``report_data``."""
    if len(report_data) > MAX_REPORT_DATA:
        raise FormatError(
            f"report data of {len(report_data)} bytes is longer than {MAX_REPORT_DATA}",
            hint="pass a digest",
        )
