# SPDX-License-Identifier: Apache-2.0
"""Which confidential processor this machine has, and the best way to it."""

from dataclasses import dataclass
from pathlib import Path

from cocos.attesters import SnpDevice, TdxDevice
from cocos.host.devices import _ioctl, configfs_tsm, sev_guest, tdx_guest
from cocos.host.devices.configfs_tsm import ConfigfsTsm, Files


@dataclass(frozen=True, slots=True)
class Processors:
    """Ways to processors; None where there is none.

    Attributes:
        snp: To the secure processor of an SNP guest.
        tdx: To the TDX module of a TDX guest.
    """

    snp: SnpDevice | None
    tdx: TdxDevice | None


def find(
    *,
    root: Path = configfs_tsm.ROOT,
    files: Files | None = None,
    sev: Path = sev_guest.DEVICE,
    tdx: Path = tdx_guest.DEVICE,
    ioctl: _ioctl.Ioctl = _ioctl.call,
) -> Processors:
    """Look for processors: configfs first, their devices where it is missing.

    Args:
        root: The folder of reports in configfs.
        files: How it is used.
        sev: Device of the secure processor.
        tdx: Device of the TDX module.
        ioctl: Does a request to a device.

    Raises:
        UnreachableError: there is a processor that we may not use.
    """
    provider = configfs_tsm.provider(root, files)

    def tsm(name: str) -> ConfigfsTsm | None:
        return ConfigfsTsm(name, root=root, files=files) if provider == name else None

    by_configfs = tsm(configfs_tsm.SNP)
    snp: SnpDevice | None = None
    if by_configfs is not None:
        snp = sev_guest.SnpByConfigfs(by_configfs)
    elif sev.exists():
        snp = sev_guest.SevGuest(sev, ioctl=ioctl)
    quotes = tsm(configfs_tsm.TDX)
    has_tdx = quotes is not None or tdx.exists()
    return Processors(
        snp=snp, tdx=tdx_guest.TdxGuest(quotes, path=tdx, ioctl=ioctl) if has_tdx else None
    )
