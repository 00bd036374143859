# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG002 - a kernel knows the device by its descriptor
"""The second way: ioctl as include/uapi/linux/{sev-guest,tdx-guest}.h have it."""

import errno
import hashlib
import struct
from pathlib import Path

import pytest
from _tsm import ROOT, FakeTsm, error, peek, poke

from cocos.errors import ProtocolError, UnreachableError
from cocos.host.devices import sev_guest, tdx_guest
from cocos.host.devices.configfs_tsm import SNP, TDX
from cocos.host.devices.processors import find
from cocos.host.devices.sev_guest import SevGuest, SnpByConfigfs
from cocos.host.devices.tdx_guest import TdxGuest

DATA = bytes(range(64))


class SevKernel:
    """SNP_GET_EXT_REPORT of drivers/virt/coco/sev-guest."""

    def __init__(self, report: bytes = b"R" * 1184, table: bytes = b"", status: int = 0) -> None:
        self.report, self.table, self.status = report, table, status
        self.asked: list[tuple[bytes, int]] = []
        self.failure: int | None = None

    def __call__(self, descriptor: int, request: int, argument: bytearray) -> int:
        assert (request, len(argument)) == (0xC0205302, 32)
        if self.failure is not None:
            raise error(self.failure)
        version, wanted, answer, _ = struct.unpack("<BxxxxxxxQQQ", argument)
        assert version == 1
        user_data, vmpl, address, size = struct.unpack("<64sI28xQI4x", peek(wanted, 112))
        self.asked.append((user_data, vmpl))
        if size < len(self.table):
            poke(wanted + 104, struct.pack("<I", len(self.table)))
            raise error(errno.ENOSPC)
        poke(address, self.table)
        head = struct.pack("<II24x", self.status, len(self.report))
        poke(answer, head + self.report[:1184])
        return 0


class TdxKernel:
    """Intel's kernels, with ``numbers`` for the requests that mainline does not have."""

    QUOTES = (0x80105402, 0xC0105402, 0x80105404, 0xC0105404)
    EXTENSIONS = (0x80315403, 0x40315403)

    def __init__(self, quote: int | None = None, extend: int | None = None) -> None:
        self._quote, self._extend = quote, extend
        self.rtmrs = [bytes(48)] * 4
        self.status = 0

    def __call__(self, descriptor: int, request: int, argument: bytearray) -> int:
        if request == 0xC4405401:
            assert len(argument) == 1088
            argument[64:] = self.td_report(bytes(argument[:64]))
        elif request == self._quote:
            address, size = struct.unpack("<QQ", argument)
            version, status, given, _ = struct.unpack("<QQII", peek(address, 24))
            assert (version, status, given) == (1, 0, 1024)
            quote = b"quote on " + peek(address + 24, given)[128:192]
            assert 24 + len(quote) <= size
            poke(address, struct.pack("<QQII", 1, self.status, given, len(quote)) + quote)
        elif request == self._extend:
            digest, register = struct.unpack("<48sB", argument)
            if register > 3:
                raise error(errno.EINVAL)
            self.rtmrs[register] = hashlib.sha384(self.rtmrs[register] + digest).digest()
        else:
            raise error(errno.ENOTTY)
        return 0

    def td_report(self, data: bytes) -> bytes:
        head = bytes(128) + data + bytes(512 - 192)
        return (head + bytes(8 + 8 + 48 * 4) + b"".join(self.rtmrs)).ljust(1024, b"\0")


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "device"
    path.touch()
    return path


@pytest.mark.parametrize("size", [0, 100, 0x4000, 0x4001, 0x10000])
async def test_a_report_by_ioctl(device: Path, size: int) -> None:
    kernel = SevKernel(table=b"T" * size)
    found = await SevGuest(device, ioctl=kernel).report(DATA)
    assert found.report == b"R" * 1184
    assert found.certificates.rstrip(b"\0") == b"T" * size
    assert set(kernel.asked) == {(DATA, 0)}


async def test_a_host_that_asks_for_all_memory_does_not_get_it(device: Path) -> None:
    kernel = SevKernel(table=b"T" * 0x100001)
    with pytest.raises(UnreachableError, match="No space"):
        await SevGuest(device, ioctl=kernel).report(DATA)
    assert len(kernel.asked) == 1


async def test_what_a_secure_processor_says_instead_of_a_report(device: Path) -> None:
    with pytest.raises(ProtocolError, match="status 0x16"):
        await SevGuest(device, ioctl=SevKernel(status=0x16)).report(DATA)
    kernel = SevKernel(report=b"R" * 4000)
    with pytest.raises(ProtocolError, match="4000 bytes"):
        await SevGuest(device, ioctl=kernel).report(DATA)
    kernel.failure = errno.EIO
    with pytest.raises(UnreachableError, match="Input/output"):
        await SevGuest(device, ioctl=kernel).report(DATA)
    with pytest.raises(UnreachableError, match="No such file"):
        await SevGuest(device.with_name("none"), ioctl=kernel).report(DATA)


@pytest.mark.parametrize("number", TdxKernel.QUOTES)
async def test_a_quote_by_ioctl(device: Path, tmp_path: Path, number: int) -> None:
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=TdxKernel(number))
    assert await tdx.quote(DATA) == b"quote on " + DATA


async def test_a_kernel_without_quotes_and_an_enclave_that_refuses(
    device: Path, tmp_path: Path
) -> None:
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=TdxKernel())
    with pytest.raises(UnreachableError, match="Inappropriate ioctl"):
        await tdx.quote(DATA)
    kernel = TdxKernel(0x80105402)
    kernel.status = 0x8000000000000001
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=kernel)
    with pytest.raises(ProtocolError, match="status 0x8000000000000001"):
        await tdx.quote(DATA)


@pytest.mark.parametrize("number", TdxKernel.EXTENSIONS)
async def test_registers_by_ioctl(device: Path, tmp_path: Path, number: int) -> None:
    kernel = TdxKernel(extend=number)
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=kernel)
    assert tdx.extends
    assert kernel.rtmrs == [bytes(48)] * 4, "to look is not to extend"
    await tdx.extend(3, b"\1" * 48)
    assert kernel.rtmrs == [*[bytes(48)] * 3, hashlib.sha384(bytes(48) + b"\1" * 48).digest()]
    assert (await tdx.td_report())[720 + 144 : 720 + 192] == kernel.rtmrs[3]


async def test_registers_by_sysfs_come_first(device: Path, tmp_path: Path) -> None:
    register = tmp_path / "rtmr3:sha384"
    register.touch()
    kernel = TdxKernel(extend=0x80315403)
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=kernel)
    assert tdx.extends
    await tdx.extend(3, b"\1" * 48)
    assert register.read_bytes() == b"\1" * 48
    assert kernel.rtmrs == [bytes(48)] * 4


async def test_a_kernel_that_cannot_extend_says_so(device: Path, tmp_path: Path) -> None:
    tdx = TdxGuest(None, path=device, registers=tmp_path, ioctl=TdxKernel())
    assert not tdx.extends
    with pytest.raises(UnreachableError):
        await tdx.extend(3, b"\1" * 48)


async def test_the_firmware_s_log(device: Path, tmp_path: Path) -> None:
    log = tmp_path / "CCEL"
    tdx = TdxGuest(None, path=device, boot_log=log, ioctl=TdxKernel())
    assert await tdx.boot_log() == b""
    log.write_bytes(b"log")
    assert await tdx.boot_log() == b"log"


def test_configfs_is_the_first_way(device: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    kernel = TdxKernel()

    def made(data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    both = find(root=ROOT, files=FakeTsm(SNP, made), sev=device, tdx=none, ioctl=kernel)
    assert isinstance(both.snp, SnpByConfigfs)
    assert both.tdx is None
    old = find(root=none, sev=device, tdx=none, ioctl=kernel)
    assert isinstance(old.snp, SevGuest)
    quotes = find(root=ROOT, files=FakeTsm(TDX, made), sev=none, tdx=device, ioctl=kernel)
    assert quotes.snp is None
    assert isinstance(quotes.tdx, TdxGuest)
    assert isinstance(find(root=none, sev=none, tdx=device, ioctl=kernel).tdx, TdxGuest)
    nothing = find(root=none, sev=none, tdx=none, ioctl=kernel)
    assert (nothing.snp, nothing.tdx) == (None, None)


def test_request_numbers_are_the_kernel_s() -> None:
    assert sev_guest.GET_EXTENDED_REPORT == 0xC0205302
    assert tdx_guest.GET_REPORT == 0xC4405401
    assert tdx_guest.GET_QUOTE == TdxKernel.QUOTES
    assert tdx_guest.EXTEND == TdxKernel.EXTENSIONS
