# SPDX-License-Identifier: Apache-2.0
"""The TDX module through ``/dev/tdx_guest`` (include/uapi/linux/tdx-guest.h), sysfs and configfs.

Quotes come by configfs; kernels before 6.7 have an ioctl of Intel's. Registers are extended
through sysfs since kernel 6.16, before by an ioctl of Intel's kernels.
"""

import asyncio
import errno
import struct
from pathlib import Path
from typing import Final

import structlog

from cocos.errors import ProtocolError, UnreachableError
from cocos.host.devices import _ioctl
from cocos.host.devices.configfs_tsm import ConfigfsTsm, KernelFiles

DEVICE: Final = Path("/dev/tdx_guest")
REGISTERS: Final = Path("/sys/devices/virtual/misc/tdx_guest/measurements")
BOOT_LOG: Final = Path("/sys/firmware/acpi/tables/data/CCEL")

_REPORT_DATA: Final = 64
_TD_REPORT: Final = 1024
_BOTH: Final = _ioctl.READ | _ioctl.WRITE
GET_REPORT: Final = _ioctl.request(_BOTH, "T", 1, _REPORT_DATA + _TD_REPORT)
_QUOTE_REQUEST: Final = struct.Struct("<QQ")  # address and length of a quote buffer
_QUOTE_BUFFER: Final = struct.Struct("<QQII")  # version, status, length in, length out
_EXTENSION: Final = struct.Struct("<48sB")
# Intel's kernels gave them different numbers; a wrong one is ENOTTY and does nothing.
GET_QUOTE: Final = (
    _ioctl.request(_ioctl.READ, "T", 2, _QUOTE_REQUEST.size),
    _ioctl.request(_BOTH, "T", 2, _QUOTE_REQUEST.size),
    _ioctl.request(_ioctl.READ, "T", 4, _QUOTE_REQUEST.size),
    _ioctl.request(_BOTH, "T", 4, _QUOTE_REQUEST.size),
)
EXTEND: Final = (
    _ioctl.request(_ioctl.READ, "T", 3, _EXTENSION.size),
    _ioctl.request(_ioctl.WRITE, "T", 3, _EXTENSION.size),
)
_QUOTE_BYTES: Final = 0x4000
_NO_REGISTER: Final = 0xFF

_log = structlog.get_logger(__name__)


class TdxGuest:
    """Asks the TDX module.

    Args:
        tsm: Makes quotes; None: the device does.
        path: The device.
        registers: The kernel's folder of registers.
        boot_log: The firmware's event log.
        ioctl: Does a request.
    """

    def __init__(
        self,
        tsm: ConfigfsTsm | None,
        *,
        path: Path = DEVICE,
        registers: Path = REGISTERS,
        boot_log: Path = BOOT_LOG,
        ioctl: _ioctl.Ioctl = _ioctl.call,
    ) -> None:
        self._tsm = tsm
        self._path = path
        self._registers = registers
        self._boot_log = boot_log
        self._ioctl = ioctl
        self.extends = self._register(3).exists() or self._can_extend()

    async def quote(self, data: bytes) -> bytes:
        """Return a quote that carries ``data``, 64 bytes.

        Raises:
            UnreachableError: the kernel, the TDX module or the quoting enclave does not answer.
        """
        if self._tsm is not None:
            return (await self._tsm.report(data)).blob
        return await asyncio.to_thread(self._quote, data)

    async def td_report(self) -> bytes:
        """Return a TDREPORT, 1024 bytes.

        Raises:
            UnreachableError: the device does not answer.
        """
        return await asyncio.to_thread(self._td_report, bytes(_REPORT_DATA))

    async def extend(self, register: int, digest: bytes) -> None:
        """Extend RTMR 0 to 3 with a SHA-384 digest.

        Raises:
            UnreachableError: the kernel has no way to do it, or it fails.
        """
        await asyncio.to_thread(self._extend, register, digest)

    async def boot_log(self) -> bytes:
        """Return the firmware's event log; empty if the kernel shows none."""
        try:
            return self._boot_log.read_bytes()
        except OSError as error:
            _log.warning("tdx.unreadable", path=str(self._boot_log), problem=error.strerror)
            return b""

    def _td_report(self, data: bytes) -> bytes:
        argument = bytearray(data + bytes(_TD_REPORT))
        with _ioctl.opened(self._path) as descriptor:
            self._ioctl(descriptor, GET_REPORT, argument)
        return bytes(argument[_REPORT_DATA:])

    def _quote(self, data: bytes) -> bytes:
        report = self._td_report(data)
        head = _QUOTE_BUFFER.pack(1, 0, len(report), 0)
        buffer = _ioctl.Buffer((head + report).ljust(_QUOTE_BYTES, b"\0"))
        self._any(GET_QUOTE, _QUOTE_REQUEST.pack(buffer.address, _QUOTE_BYTES))
        answer = bytes(buffer)
        _, status, _, length = _QUOTE_BUFFER.unpack_from(answer)
        if status or not 0 < length <= _QUOTE_BYTES - _QUOTE_BUFFER.size:
            raise ProtocolError(
                f"the quoting enclave refused a quote: status {status:#x}, {length} bytes",
                hint="is Intel's quote generation service running on the host?",
            )
        return answer[_QUOTE_BUFFER.size : _QUOTE_BUFFER.size + length]

    def _extend(self, register: int, digest: bytes) -> None:
        path = self._register(register)
        if not path.exists():
            self._any(EXTEND, _EXTENSION.pack(digest, register))
            return
        try:
            KernelFiles().write(path, digest)
        except OSError as error:
            raise UnreachableError(
                f"cannot extend RTMR {register} by {path}: {error.strerror}",
                hint="is the attestation agent root?",
            ) from error

    def _any(self, numbers: tuple[int, ...], argument: bytes) -> None:
        """Do the first request that this kernel knows."""
        with _ioctl.opened(self._path) as descriptor:
            for number in numbers:
                try:
                    self._ioctl(descriptor, number, bytearray(argument))
                except OSError as error:
                    if error.errno != errno.ENOTTY or number == numbers[-1]:
                        raise
                else:
                    return

    def _can_extend(self) -> bool:
        """Ask the device with a register that there is not: who knows the request minds that."""
        try:
            self._any(EXTEND, _EXTENSION.pack(bytes(48), _NO_REGISTER))
        except UnreachableError as error:
            cause = error.__cause__
            return isinstance(cause, OSError) and cause.errno in {errno.EINVAL, errno.EIO}
        return False

    def _register(self, number: int) -> Path:
        return self._registers / f"rtmr{number}:sha384"
