# SPDX-License-Identifier: Apache-2.0
"""Intel TDX: evidence is a quote, with the log of what firmware and agent measured.

Logs number the registers from 1 (RTMR 0) to 4 (RTMR 3); 0 is MRTD. Requests name a PCR
(UEFI specification 2.10, §38.4.1): 1 and 7 are RTMR 0, 2 to 6 RTMR 1, 8 to 15 RTMR 2, and
the rest RTMR 3, which nobody but us extends.
"""

import base64
from typing import Any, ClassVar, Final, Self

from cocos._types import JsonObject
from cocos.attesters._base import Attester, Devices, check_report_data
from cocos.attesters._devices import TdxDevice, filled
from cocos.errors import FormatError, IntegrityError, ProtocolError, UnsupportedError
from cocos.evidence.eventlog import EMPTY_CC_LOG, log_end
from cocos.wire.kbs.protocol import Tee

REGISTER: Final = 3
"""RTMR of runtime events."""
LOGGED_AS: Final = 4
"""Its number in event logs."""

_PCRS: Final = frozenset({0, *range(16, 24)})  # what requests call it
_DIGEST_BYTES: Final = 48
_END: Final = b"\xff" * 8
_TD_REPORT_BYTES: Final = 1024
_TD_INFO: Final = 512
_CONFIG_ID: Final = slice(_TD_INFO + 64, _TD_INFO + 112)
_RTMRS: Final = _TD_INFO + 208


class TdxAttester(Attester):
    """Makes evidence with the TDX module.

    Args:
        device: The TDX module.
    """

    kind: ClassVar[Tee] = Tee.TDX
    logged_as: ClassVar[int | None] = LOGGED_AS

    def __init__(self, device: TdxDevice) -> None:
        self._device = device
        self.register_hash = "sha384" if device.extends else None

    @classmethod
    async def detect(cls, devices: Devices) -> Self | None:
        """Return an attester if this is a TDX guest."""
        return None if devices.tdx is None else cls(devices.tdx)

    async def evidence(
        self,
        report_data: bytes,
        challenge: JsonObject | None = None,  # noqa: ARG002 - of a TPM
        *,
        events: bytes = b"",
    ) -> Any:
        """Return a quote that carries ``report_data``, and the log of firmware and agent.

        Raises:
            FormatError: ``report_data`` is too long.
            ProtocolError: the firmware's log is malformed.
            UnreachableError: the TDX module or the quoting enclave does not answer.
        """
        check_report_data(report_data)
        quote = await self._device.quote(filled(report_data))
        log = _cc_log(await self._device.boot_log(), events)
        return {"cc_eventlog": _b64(log) if log else None, "quote": _b64(quote)}

    async def read_register(self, index: int) -> bytes:
        """Return the value of RTMR 3."""
        self._check_register(index)
        begin = _RTMRS + REGISTER * _DIGEST_BYTES
        return (await self._td_report())[begin : begin + _DIGEST_BYTES]

    async def extend_register(self, index: int, digest: bytes) -> None:
        """Extend RTMR 3."""
        self._check_register(index)
        if not self._device.extends:
            raise self._no_register(index)
        await self._device.extend(REGISTER, digest)

    async def bind_init_data(self, digest: bytes) -> None:
        """Compare with MRCONFIGID, which the host gave at the launch: the first 48 bytes.

        Raises:
            IntegrityError: this machine was started with other init data, or without.
        """
        found = (await self._td_report())[_CONFIG_ID]
        wanted = filled(digest, _DIGEST_BYTES)
        if found != wanted:
            raise IntegrityError(
                f"this machine was started with other init data: MRCONFIGID is {found.hex()}, "
                f"not {wanted.hex()}",
                hint="the host sets it at the launch (QEMU: mrconfigid=)",
            )

    async def _td_report(self) -> bytes:
        found = await self._device.td_report()
        if len(found) != _TD_REPORT_BYTES:
            raise ProtocolError(f"a TDREPORT has {_TD_REPORT_BYTES} bytes, not {len(found)}")
        return found

    def _check_register(self, index: int) -> None:
        if index not in _PCRS:
            raise UnsupportedError(
                f"runtime events are measured into RTMR {REGISTER}, which PCR {index} is not",
                hint="name 17 or none; the other registers belong to the boot",
            )


def _cc_log(firmware: bytes, events: bytes) -> bytes:
    """Return both logs as one; empty without any."""
    if not firmware and not events:
        return b""
    try:
        begin = firmware[: log_end(firmware)] if firmware else EMPTY_CC_LOG
    except FormatError as error:
        raise ProtocolError(f"the firmware's event log (CCEL): {error.message}") from error
    return begin + events + _END


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
