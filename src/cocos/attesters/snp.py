# SPDX-License-Identifier: Apache-2.0
"""AMD SEV-SNP: evidence is the secure processor's report, with the host's certificates.

There is no register for runtime events. Once there are any, the log of them goes along and
the report data is over both (ADR 0040); until then evidence is the guest components'.
"""

import base64
from typing import Any, ClassVar, Final, Self

import msgspec
import structlog

from cocos._types import JsonObject
from cocos.attesters._base import Attester, Devices, check_report_data
from cocos.attesters._devices import SnpDevice, SnpReport, filled
from cocos.attesters._snp_json import REPORT_BYTES, report_json
from cocos.errors import FormatError, IntegrityError, ProtocolError
from cocos.evidence.snp_binding import bind, mimics
from cocos.evidence.snp_json import ReportJson
from cocos.evidence.snp_table import parse_table
from cocos.wire.kbs.protocol import Tee

_REPORT_DATA: Final = slice(0x50, 0x90)
_HOST_DATA: Final = slice(0xC0, 0xE0)
_HOST_DATA_BYTES: Final = 32

_log = structlog.get_logger(__name__)


class SnpAttester(Attester):
    """Makes evidence with the secure processor.

    Args:
        device: The secure processor.
    """

    kind: ClassVar[Tee] = Tee.SNP
    register_hash: str | None = "sha384"
    events_in_report: ClassVar[bool] = True
    default_register: ClassVar[int] = 14  # a TPM's for them: here no more than a number

    def __init__(self, device: SnpDevice) -> None:
        self._device = device

    @classmethod
    async def detect(cls, devices: Devices) -> Self | None:
        """Return an attester if this is an SNP guest."""
        return None if devices.snp is None else cls(devices.snp)

    async def evidence(
        self,
        report_data: bytes,
        challenge: JsonObject | None = None,  # noqa: ARG002 - of a TPM
        *,
        events: bytes = b"",
    ) -> Any:
        """Return a report that carries ``report_data`` and ``events``, and the certificates.

        Raises:
            FormatError: ``report_data`` is too long, or reads as if it carried events.
            ProtocolError: the processor's answer is no report on it.
            UnreachableError: the processor does not answer.
        """
        check_report_data(report_data)
        if mimics(report_data):
            # Whoever may ask for evidence could else claim any computation.
            raise FormatError(
                "report data must not end as if it carried runtime events",
                hint="pass a digest of at most 48 bytes",
            )
        data = bind(report_data, events) if events else filled(report_data)
        found = await self._report(data)
        evidence: JsonObject = {
            "attestation_report": _shown(found.report),
            "cert_chain": _certificates(found.certificates),
        }
        if events:
            evidence["aael"] = base64.b64encode(events).decode("ascii")
        return evidence

    async def bind_init_data(self, digest: bytes) -> None:
        """Compare with HOST_DATA, which the host gave at the launch: the first 32 bytes.

        Raises:
            IntegrityError: this machine was started with other init data, or without.
        """
        found = (await self._report(filled(b""))).report[_HOST_DATA]
        wanted = filled(digest, _HOST_DATA_BYTES)
        if found != wanted:
            raise IntegrityError(
                f"this machine was started with other init data: HOST_DATA is {found.hex()}, "
                f"not {wanted.hex()}",
                hint="the host sets it at the launch (QEMU: host-data=)",
            )

    async def _report(self, data: bytes) -> SnpReport:
        found = await self._device.report(data)
        if len(found.report) != REPORT_BYTES or found.report[_REPORT_DATA] != data:
            raise ProtocolError("what the secure processor answered is no report on our data")
        return found


def _shown(report: bytes) -> JsonObject | str:
    """Return a report's fields; standard base64 of its bytes where fields would lose some."""
    fields = report_json(report)
    try:
        if msgspec.convert(fields, ReportJson).encode() == report:
            return fields
    except (msgspec.ValidationError, FormatError):
        pass  # of a processor to come
    return base64.b64encode(report).decode("ascii")


def _certificates(table: bytes) -> list[JsonObject] | None:
    """Return the host's certificates; None without. Who verifies can have them elsewhere."""
    try:
        found = parse_table(table)
    except FormatError as error:
        _log.warning("attester.certificates", problem=error.message)
        return None
    named = {entry.kind: entry.data for entry in reversed(found) if entry.kind is not None}
    return [{"cert_type": kind, "data": list(data)} for kind, data in named.items()] or None
