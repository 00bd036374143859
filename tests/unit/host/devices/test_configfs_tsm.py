# SPDX-License-Identifier: Apache-2.0
"""Reports by configfs: nobody else's data, nothing left behind, races survived."""

import errno
from pathlib import Path

import pytest
from _tsm import ROOT, FakeTsm

from cocos.errors import UnreachableError
from cocos.host.devices.configfs_tsm import SNP, TDX, ConfigfsTsm, KernelFiles, provider

DATA = bytes(range(64))
OTHERS = b"\xee" * 64


def made(data: bytes) -> tuple[bytes, bytes | None]:
    return b"report on " + data, b"table"


class Pauses:
    """Counts pauses and does not wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def reports(kernel: FakeTsm, name: str = SNP, sleep: Pauses | None = None) -> ConfigfsTsm:
    return ConfigfsTsm(name, root=ROOT, files=kernel, sleep=sleep or Pauses())


async def test_a_report_carries_our_data_and_leaves_nothing_behind() -> None:
    kernel = FakeTsm(SNP, made)
    found = await reports(kernel).report(DATA)
    assert (found.blob, found.auxiliary) == (b"report on " + DATA, b"table")
    assert kernel.entries == {}


async def test_a_provider_without_auxiliary_data() -> None:
    kernel = FakeTsm(TDX, lambda data: (data, None))
    assert (await reports(kernel, TDX).report(DATA)).auxiliary == b""


async def test_what_somebody_else_wrote_is_never_ours() -> None:
    """Two programs of one guest may write into one entry; who comes second is answered."""
    kernel = FakeTsm(SNP, made)
    kernel.intruders = [OTHERS, OTHERS]
    pauses = Pauses()
    assert (await reports(kernel, sleep=pauses).report(DATA)).blob == b"report on " + DATA
    assert len(pauses.seconds) == 2
    assert kernel.entries == {}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EWOULDBLOCK, errno.EINTR])
async def test_a_kernel_that_is_busy_is_asked_again(number: int) -> None:
    kernel = FakeTsm(SNP, made)
    kernel.failures = [number] * 3
    assert (await reports(kernel).report(DATA)).blob == b"report on " + DATA


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EWOULDBLOCK])
async def test_a_kernel_that_stays_busy_is_given_up(number: int) -> None:
    kernel = FakeTsm(SNP, made)
    kernel.failures = [number] * 100
    pauses = Pauses()
    with pytest.raises(UnreachableError, match=r"busy|unavailable"):
        await reports(kernel, sleep=pauses).report(DATA)
    assert len(pauses.seconds) == 6
    assert kernel.entries == {}


async def test_a_failure_is_told_at_once_and_leaves_nothing_behind() -> None:
    kernel = FakeTsm(SNP, made)
    kernel.failures = [errno.EIO]
    pauses = Pauses()
    with pytest.raises(UnreachableError, match=r"tsm/report: Input/output error"):
        await reports(kernel, sleep=pauses).report(DATA)
    assert pauses.seconds == []
    assert kernel.entries == {}


async def test_reports_of_another_provider_are_not_taken() -> None:
    with pytest.raises(UnreachableError, match="tdx_guest, not sev_guest"):
        await reports(FakeTsm(TDX, made)).report(DATA)


def test_who_makes_reports(tmp_path: Path) -> None:
    assert provider(ROOT, FakeTsm(SNP, made)) == SNP
    assert provider(ROOT, FakeTsm(None, made)) is None
    assert provider(tmp_path / "no configfs") is None


def test_a_processor_that_we_may_not_use_is_told() -> None:
    """Else the machine would become another TEE, or a sample."""

    class Forbidden(FakeTsm):
        def make(self, folder: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with pytest.raises(UnreachableError, match="Permission denied"):
        provider(ROOT, Forbidden(SNP, made))


def test_files_of_the_kernel_are_written_by_one_call(tmp_path: Path) -> None:
    files = KernelFiles()
    folder = tmp_path / "entry"
    files.make(folder)
    with pytest.raises(FileNotFoundError):
        files.write(folder / "inblob", DATA)  # attributes are the kernel's, never ours
    (folder / "inblob").touch()
    files.write(folder / "inblob", DATA)
    assert files.read(folder / "inblob") == DATA
    (folder / "inblob").unlink()
    files.remove(folder)
    assert not folder.exists()
