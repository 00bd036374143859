# SPDX-License-Identifier: Apache-2.0
"""Names of the files of an image: who builds one and who boots it agree on them."""

from types import MappingProxyType
from typing import Final, Literal

Memory = Literal["snp", "tdx"]
"""How a processor encrypts the memory of a VM."""

UKI: Final = "cocos.efi"
ROOT: Final = "root.img"
REFERENCE_VALUES: Final = "reference-values.json"
DESCRIPTION: Final = "image.json"
FIRMWARE: Final = MappingProxyType[Memory, str](
    {"snp": "firmware-snp.fd", "tdx": "firmware-tdx.fd"}
)
"""Firmware of VMs with encrypted memory; their measurements cover it."""
