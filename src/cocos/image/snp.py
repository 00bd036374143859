# SPDX-License-Identifier: Apache-2.0
"""Launch digests of SEV-SNP VMs, as QEMU with KVM starts them (library sev-snp-measure)."""

from pathlib import Path
from typing import Final

from sevsnpmeasure.gctx import GCTX
from sevsnpmeasure.guest import snp_update_metadata_pages
from sevsnpmeasure.ovmf import OVMF, SectionType
from sevsnpmeasure.sev_hashes import SevHashes
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vcpu_types import CPU_SIGS
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

from cocos.errors import FormatError
from cocos.host.machines.qemu import SNP_CPU

GUEST_FEATURES: Final = 0x1
"""SEV_FEATURES of the processors' first state: SNP active, what KVM sets by default."""

CPU_SIGNATURE: Final[int] = CPU_SIGS[SNP_CPU]


def launch_digests(firmware: Path, kernel: Path, cpus: int) -> list[bytes]:
    """Return the digests of VMs with 1, 2, … processors.

    Covered are the firmware, SHA-256 of the kernel image, of no initrd and of an empty
    command line (``kernel-hashes=on``), and the first state of every processor.

    Args:
        firmware: In one file, that checks these hashes.
        kernel: Unified kernel image.
        cpus: How many digests.

    Raises:
        FormatError: the firmware has no place for hashes, or parts that are not known.
    """
    try:
        return _launch_digests(firmware, kernel, cpus)
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{firmware.name}: {error}") from error


def _launch_digests(firmware: Path, kernel: Path, cpus: int) -> list[bytes]:
    ovmf = OVMF(str(firmware))
    hashes_section = ovmf.has_metadata_section(SectionType.SNP_KERNEL_HASHES)
    if not ovmf.is_sev_hashes_table_supported() or not hashes_section:
        raise FormatError(f"{firmware.name} does not check which kernel it starts")
    context = GCTX()
    context.update_normal_pages(ovmf.gpa(), ovmf.data())
    hashes = SevHashes(str(kernel), initrd="", append="")
    snp_update_metadata_pages(context, ovmf, hashes, VMMType.QEMU)
    states = VMSA(SevMode.SEV_SNP, ovmf.sev_es_reset_eip(), CPU_SIGNATURE, GUEST_FEATURES)
    digests = []
    for page in states.pages(cpus):
        context.update_vmsa_page(page)
        digests.append(context.ld())
    return digests
