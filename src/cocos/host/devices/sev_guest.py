# SPDX-License-Identifier: Apache-2.0
"""The secure processor through ``/dev/sev-guest`` (include/uapi/linux/sev-guest.h)."""

import asyncio
import errno
import struct
from pathlib import Path
from typing import Final

from cocos.attesters import SnpReport
from cocos.errors import ProtocolError
from cocos.host.devices import _ioctl
from cocos.host.devices.configfs_tsm import ConfigfsTsm

DEVICE: Final = Path("/dev/sev-guest")

_REQUEST: Final = struct.Struct("<B7xQQQ")  # version, request, response, error
_EXTENDED: Final = struct.Struct("<64sI28xQI4x")  # data, VMPL, certificates, their length
_ANSWER: Final = struct.Struct("<II24x")  # status, size; then the report
GET_EXTENDED_REPORT: Final = _ioctl.request(_ioctl.READ | _ioctl.WRITE, "S", 2, _REQUEST.size)
_VERSION: Final = 1
_VMPL: Final = 0
_ANSWER_BYTES: Final = 4000
_FIRST_TABLE: Final = 0x4000
_MOST_TABLE: Final = 0x100000


class SevGuest:
    """Asks for reports by ioctl.

    Args:
        path: The device.
        ioctl: Does a request.
    """

    def __init__(self, path: Path = DEVICE, *, ioctl: _ioctl.Ioctl = _ioctl.call) -> None:
        self._path = path
        self._ioctl = ioctl

    async def report(self, data: bytes) -> SnpReport:
        """Return a report of VMPL 0 that carries ``data``, 64 bytes.

        Raises:
            UnreachableError: the device does not answer.
            ProtocolError: the secure processor refused.
        """
        return await asyncio.to_thread(self._report, data)

    def _report(self, data: bytes) -> SnpReport:
        with _ioctl.opened(self._path) as descriptor:
            size = _FIRST_TABLE
            while True:
                table = _ioctl.Buffer(bytes(size))
                wanted = _ioctl.Buffer(_EXTENDED.pack(data, _VMPL, table.address, size))
                answer = _ioctl.Buffer(bytes(_ANSWER_BYTES))
                head = _REQUEST.pack(_VERSION, wanted.address, answer.address, 0)
                try:
                    self._ioctl(descriptor, GET_EXTENDED_REPORT, bytearray(head))
                except OSError as error:
                    *_, needed = _EXTENDED.unpack(bytes(wanted))
                    # The kernel says how much room the host's certificates need.
                    if error.errno != errno.ENOSPC or not size < needed <= _MOST_TABLE:
                        raise
                    size = needed
                else:
                    return SnpReport(_parsed(bytes(answer)), bytes(table))


class SnpByConfigfs:
    """Asks for reports through configfs.

    Args:
        tsm: Of the provider ``sev_guest``.
    """

    def __init__(self, tsm: ConfigfsTsm) -> None:
        self._tsm = tsm

    async def report(self, data: bytes) -> SnpReport:
        """Return a report that carries ``data``, 64 bytes.

        Raises:
            UnreachableError: the kernel does not answer.
        """
        found = await self._tsm.report(data)
        return SnpReport(found.blob, found.auxiliary)


def _parsed(answer: bytes) -> bytes:
    status, size = _ANSWER.unpack_from(answer)
    if status or size > len(answer) - _ANSWER.size:
        raise ProtocolError(
            f"the secure processor refused a report: status {status:#x}, {size} bytes"
        )
    return answer[_ANSWER.size : _ANSWER.size + size]
