# SPDX-License-Identifier: Apache-2.0
"""What goes into the guest: packages of Debian 13, what of them stays, modules, units."""

import fnmatch
import re
from types import MappingProxyType
from typing import Final

from cocos.wire.image_folder import Memory

SUITE: Final = "trixie"

PACKAGES: Final = (
    "base-files",
    "bash",
    "busybox-static",
    "ca-certificates",
    "coreutils",
    "cryptsetup-bin",
    "curl",
    "dash",
    "dmsetup",
    "e2fsprogs",
    "findutils",
    "grep",
    "iproute2",
    "jq",
    "libstdc++6",
    "linux-image-cloud-amd64",
    "mount",
    "procps",
    "python3",
    "python3-tpm2-pytss",
    "runc",
    "sed",
    "skopeo",
    "systemd",
    "umoci",
    "util-linux",
)
"""Named packages; what they depend on comes with them."""

DEBUG_PACKAGES: Final = ("dropbear-bin", "less", "strace", "tpm2-tools")

TOOL_PACKAGES: Final = (
    "cryptsetup-bin",
    "python3",
    "squashfs-tools",
    "systemd-boot-efi",
    "systemd-ukify",
    "zstd",
)
"""Programs of the build itself, never part of an image."""

FIRMWARE_SUITE: Final = "forky"
"""Debian 13 has no firmware that checks hashes of the kernel, and none for TDX."""

FIRMWARE: Final = MappingProxyType[Memory, tuple[str, str]](
    {
        "snp": ("ovmf-amdsev", "usr/share/ovmf/OVMF.amdsev.fd"),
        "tdx": ("ovmf-inteltdx", "usr/share/ovmf/OVMF.inteltdx.ms.fd"),
    }
)
"""Kind of encrypted memory → package and file of the firmware."""

PYTHON: Final = "python3.13"
SITE_PACKAGES: Final = f"usr/local/lib/{PYTHON}/dist-packages"

PROGRAMS: Final = {
    "attestation-agent": "cocos.cli.guest.attestation_agent",
    "coco-keyprovider": "cocos.cli.guest.coco_keyprovider",
    "cocos-agent": "cocos.cli.guest.cocos_agent",
}
"""Our programs in the guest, and the modules with their ``main``."""

DEBUG_PROGRAMS: Final = {"grpcurl": "cocos.cli.owner.grpcurl"}
"""The same, of debug images."""

UNUSED_WHEELS: Final = ("rich", "pygments", "markdown_it", "mdurl")
"""Modules that locked wheels ask for and our programs in the guest do without."""

OUR_PACKAGES: Final = (
    "agent",
    "attestation_agent",
    "attesters",
    "cli",
    "clients",
    "crypto",
    "evidence",
    "host",
    "keyprovider",
    "transport",
    "wire",
)
"""Packages of ours that the guest's programs import; the rest would only be measured."""

OUR_MODULES: Final = ("image/__init__.py", "image/unpack.py")
"""Single modules of others."""

LIBRARIES: Final = ("sev-snp-measure",)
"""Python packages of this machine whose version shows in the output."""

ROOT_FORMAT: Final = "squashfs"

ROOT_MODULES: Final = ("pvpanic_pci", "virtio_blk", "virtio_net", "dm_verity", ROOT_FORMAT)
"""Kernel modules for the root file system, the network, and telling of a panic on the way."""

HASH_MODULES: Final = ("sha256_ssse3",)
"""Faster SHA-256 for processors that have instructions for it; emulated ones lose by it."""

LATER_MODULES: Final = (
    "virtio_rng",
    "ext4",
    "dm_crypt",
    "xts",
    "aesni_intel",
    "configfs",
    "sev_guest",
    "tdx_guest",
)
"""Kernel modules that the services need. After these, no module can be loaded."""

SYSTEM_UNITS: Final = (
    "basic.target",
    "final.target",
    "local-fs-pre.target",
    "local-fs.target",
    "multi-user.target",
    "network-online.target",
    "network-pre.target",
    "network.target",
    "nss-lookup.target",
    "paths.target",
    "poweroff.target",
    "reboot.target",
    "shutdown.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-poweroff.service",
    "systemd-reboot.service",
    "time-set.target",
    "time-sync.target",
    "timers.target",
    "umount.target",
)
"""All of systemd's own units that the guest has; its generators and drop-ins go, too."""

ENABLED: Final = {
    "sysinit.target": ("systemd-journald.service",),
    "sockets.target": ("systemd-journald.socket", "systemd-journald-dev-log.socket"),
    "multi-user.target": (
        "attestation-agent.service",
        "coco-keyprovider.service",
        "cocos-agent.service",
    ),
}
"""Target → units that it wants."""

DEBUG_ENABLED: Final = {
    "multi-user.target": ("cocos-debug-console.service", "cocos-debug-ssh.service")
}
"""The same, of debug images."""

_KEPT_ETC = (
    r"alternatives",
    r"containers/policy\.json",
    r"debian_version",
    r"mke2fs\.conf",
    r"netconfig",
    r"protocols",
    r"services",
    r"ssl/openssl\.cnf",
)

_DROPPED = (
    r"boot/.*",
    r"(home|media|mnt|opt|srv|tmp|var|dev|run|root)/.*",
    rf"etc/(?!({'|'.join(_KEPT_ETC)})(/|$)).*",
    r"usr/(games|include|src)/.*",
    r"usr/share/(?!ca-certificates(/|$)).*",
    # systemd: units by name, nothing that makes units of what it finds.
    rf"usr/lib/systemd/system/(?!({'|'.join(map(re.escape, SYSTEM_UNITS))})$).*",
    r"usr/lib/systemd/.*(-generators|-preset|\.conf\.d)/.*",
    r".*/__pycache__/.*",
    r"packages\.txt",
)
"""Patterns of whole paths that stay out."""

_DROPPED_NAMES = {
    "usr/bin": (
        "ask-password busybox chage chfn chsh deb* dirmngr* dpkg* expiry gpasswd gpg* hostnamectl "
        "kbxutil lastlog2 localectl loginctl networkctl newgrp openssl passwd perl* pinentry* "
        "pydoc* pygettext* su systemd-[acfhimpsuv]* systemd-tm* systemd-d[ei][ls]* "
        "systemd-repart timedatectl udevadm watchgnupg"
    ),
    "usr/sbin": (
        "add* bridge chgpasswd chpasswd cron* dcb debugfs del* devlink dpkg* dropbear e2scrub* "
        "genl gr* group* ip6tables* iptables* mklost* newusers nfnl* pam* pw* rdma rtacct tc tipc "
        "update-* user* vdpa xtables* *getty sulogin"
    ),
    "usr/lib": (
        "cni cryptsetup dpkg gnupg initramfs-tools kernel klibc* locale modprobe.d modules "
        "modules-load.d sasl2 sysctl.d sysusers.d terminfo tmpfiles.d udev valgrind"
    ),
    "usr/lib/systemd": (
        "boot catalog network systemd-backlight systemd-battery-check systemd-boot-check* "
        "systemd-bsod systemd-hibernate-resume systemd-hostnamed systemd-initctl systemd-localed "
        "systemd-logind systemd-measure systemd-network* systemd-pcr* systemd-pstore "
        "systemd-quotacheck systemd-rfkill systemd-sleep systemd-socket-proxyd systemd-ssh-* "
        "systemd-storagetm systemd-sulogin-shell systemd-sysv-install systemd-timedated "
        "systemd-tpm2-setup systemd-udevd systemd-user-* systemd-xdg-* user"
    ),
    "usr/lib/x86_64-linux-gnu": (
        "engines-3 gconv krb5 ldscripts libdb-5* libdevmapper-event* libperl* perl* sasl2 security"
    ),
    f"usr/lib/{PYTHON}": (
        "EXTERNALLY-MANAGED config-* ensurepip idlelib lib2to3 pydoc_data sitecustomize.py test "
        "tkinter turtledemo venv"
    ),
    # The locked wheels bring these.
    "usr/lib/python3/dist-packages": "_cffi_backend* bcrypt* cffi* cryptography* ply* pycparser*",
}
"""Folder → shell patterns of names in it that stay out, with all below them."""


def _names(folder: str, patterns: str) -> str:
    # fnmatch's expressions stand for a whole name; ours goes on below it.
    choices = (
        fnmatch.translate(each).replace(r"\Z", "").replace(".*", "[^/]*")
        for each in patterns.split()
    )
    return rf"{re.escape(folder)}/(?:{'|'.join(choices)})(?:/.*)?"


_DEBUG_KEPT = re.compile(
    r"usr/sbin/dropbear|usr/bin/systemd-(analyze|cat|cgls)|usr/(lib|share)/terminfo(/.*)?"
)
_DROP = re.compile(
    "|".join((*_DROPPED, *(_names(folder, names) for folder, names in _DROPPED_NAMES.items())))
)


def stays(path: str, *, debug: bool) -> bool:
    """Tell whether a file of the packages, named without a leading slash, goes into the image."""
    if debug and _DEBUG_KEPT.fullmatch(path):
        return True
    return not _DROP.fullmatch(path)


def packages(*, debug: bool) -> tuple[str, ...]:
    """Return the packages of an image, by name."""
    return tuple(sorted((*PACKAGES, *(DEBUG_PACKAGES if debug else ()))))


def programs(*, debug: bool) -> dict[str, str]:
    """Return our programs in an image, and the modules with their ``main``."""
    return {**PROGRAMS, **(DEBUG_PROGRAMS if debug else {})}


def enabled(*, debug: bool) -> dict[str, tuple[str, ...]]:
    """Return target → units that it wants."""
    extra = DEBUG_ENABLED if debug else {}
    return {
        target: (*ENABLED.get(target, ()), *extra.get(target, ()))
        for target in {**ENABLED, **extra}
    }


def command_line(root_hash: str, blocks: int, *, debug: bool) -> str:
    """Return the kernel's command line.

    Args:
        root_hash: Root of the hash tree, hex.
        blocks: Data blocks of 4096 bytes before the tree.
        debug: Of a debug image.
    """
    words = [
        f"roothash={root_hash}",
        f"cocos.blocks={blocks}",
        # No program, unit or password of the host's gets in through SMBIOS or fw_cfg.
        "systemd.import_credentials=no",
        "systemd.default_device_timeout_sec=5",
        "console=ttyS0",
        "loglevel=4",
        "panic=-1",
        "oops=panic",
        "random.trust_cpu=on",
        "net.ifnames=0",
        "systemd.show_status=no",
    ]
    return " ".join([*words, *(["cocos.debug"] if debug else [])])
