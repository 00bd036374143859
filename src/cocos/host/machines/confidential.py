# SPDX-License-Identifier: Apache-2.0
"""Whether this host can encrypt the memory of VMs: facts that are read, a verdict that is pure.

Hosts: AMD SEV-SNP and Intel TDX, as their kernel modules say. A QEMU must know them, too.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from cocos.host import process
from cocos.host.machines import qemu
from cocos.wire.image_folder import Memory

# The first releases with the objects sev-snp-guest and tdx-guest.
_SINCE: dict[Memory, tuple[int, int]] = {"snp": (9, 1), "tdx": (10, 1)}
_CPU_FLAG: dict[Memory, str] = {"snp": "sev_snp", "tdx": "tdx_host_platform"}
_MODULE: dict[Memory, str] = {
    "snp": "sys/module/kvm_amd/parameters/sev_snp",
    "tdx": "sys/module/kvm_intel/parameters/tdx",
}
_YES = frozenset({"Y", "1"})


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What decides.

    Attributes:
        cpu_flags: Of the first processor, as the kernel names them.
        modules: Which kinds KVM's modules have switched on.
        qemu: Version of QEMU, major and minor.
    """

    cpu_flags: frozenset[str]
    modules: frozenset[Memory]
    qemu: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the host offers: a kind or none, and why."""

    kind: Memory | None
    reason: str


async def read_facts(root: Path = Path("/")) -> HostFacts:
    """Read the facts.

    Args:
        root: Where ``proc`` and ``sys`` are.

    Raises:
        ToolMissingError: there is no QEMU.
    """
    modules = {kind for kind, path in _MODULE.items() if _read(root / path).strip() in _YES}
    flags = re.search(r"^flags\s*:(.*)$", _read(root / "proc/cpuinfo"), re.MULTILINE)
    program = process.find_tool(qemu.PROGRAM, hint=qemu.INSTALL_HINT)
    answer = (await process.run([program, "--version"], timeout=30)).stdout.decode(errors="replace")
    version = re.search(r"version (\d+)\.(\d+)", answer)
    return HostFacts(
        cpu_flags=frozenset(flags[1].split() if flags else ()),
        modules=frozenset(modules),
        qemu=(int(version[1]), int(version[2])) if version else (0, 0),
    )


def judge(facts: HostFacts) -> Verdict:
    """Say what the facts mean."""
    for kind, since in _SINCE.items():
        if kind not in facts.modules or _CPU_FLAG[kind] not in facts.cpu_flags:
            continue
        if facts.qemu < since:
            needed, found = (".".join(map(str, version)) for version in (since, facts.qemu))
            return Verdict(None, f"the host has {kind}, but QEMU {found} is older than {needed}")
        return Verdict(kind, f"the host has {kind}")
    return Verdict(None, "the host has neither SEV-SNP nor TDX")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
