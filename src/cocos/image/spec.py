# SPDX-License-Identifier: Apache-2.0
"""What goes into the guest: packages of Debian 13, what of them stays, modules, units."""

import re
from typing import Final

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
    "libatomic1",
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

PYTHON: Final = "python3.13"
SITE_PACKAGES: Final = f"usr/local/lib/{PYTHON}/dist-packages"

PROGRAMS: Final = {
    "attestation-agent": "cocos.cli.attestation_agent",
    "coco-keyprovider": "cocos.cli.coco_keyprovider",
    "cocos-agent": "cocos.cli.cocos_agent",
}
"""Our programs in the guest, and the modules with their ``main``."""

OUR_PACKAGES: Final = (
    "agent",
    "attestation_agent",
    "attesters",
    "cli",
    "clients",
    "crypto",
    "evidence",
    "host",
    "image",
    "keyprovider",
    "transport",
    "wire",
)
"""Packages of ours that the guest's programs import; the rest would only be measured."""

ROOT_MODULES: Final = ("virtio_blk", "virtio_net", "dm_verity", "squashfs", "sha256_ssse3")
"""Kernel modules without which there is no root file system or network."""

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
    r"usr/lib/(cni|cryptsetup|dpkg|gnupg|initramfs-tools|kernel|klibc|locale|modules|modprobe\.d"
    r"|modules-load\.d|netplan|sasl2|sysctl\.d|sysusers\.d|tmpfiles\.d|udev|valgrind)/.*",
    r"usr/lib/klibc-.*",
    # systemd: units by name, and nothing that listens to the host.
    rf"usr/lib/systemd/system/(?!({'|'.join(map(re.escape, SYSTEM_UNITS))})$).*",
    r"usr/lib/systemd/(catalog|network|user|.*-generators|.*-preset|.*\.conf\.d|boot)/.*",
    r"usr/lib/systemd/systemd-(backlight|battery-check|bsod|boot-check.*|hibernate-resume"
    r"|hostnamed|initctl|localed|logind|measure|network.*|pcr.*|pstore|quotacheck|rfkill|ssh-.*"
    r"|socket-proxyd|sleep|storagetm|sysv-install|timedated|tpm2-setup|udevd|user-.*|xdg-.*"
    r"|sulogin-shell)",
    r"usr/bin/(gpg.*|dirmngr.*|kbxutil|pinentry.*|perl.*|dpkg.*|deb.*|openssl|udevadm|watchgnupg"
    r"|networkctl|localectl|hostnamectl|timedatectl|loginctl|systemd-(ac-power|cryptenroll|dissect"
    r"|firstboot|hwdb|mount|umount|repart|sysext|confext|vpick|stdio-bridge|inhibit|machine-id-setup"
    r"|creds|tty-ask-password-agent|ask-password|delta|socket-activate|path|id128|sysusers|tmpfiles)"
    r"|lastlog2|chfn|chsh|gpasswd|passwd|expiry|chage|su|newgrp|pydoc.*|pygettext.*)",
    r"usr/bin/busybox",  # the initrd's
    r"usr/sbin/(pam.*|useradd|userdel|usermod|group.*|gr(p)?.*|pw.*|newusers|chpasswd|chgpasswd"
    r"|iptables.*|ip6tables.*|xtables.*|nfnl.*|e2scrub.*|debugfs|mklost.*|tc|rdma|dcb|devlink|tipc"
    r"|bridge|genl|rtacct|vdpa|dpkg.*|update-.*|add(user|group)|del(user|group)|cron.*|dropbear)",
    r"usr/lib/x86_64-linux-gnu/(security|gconv|sasl2|krb5|engines-3|perl.*|ldscripts)/.*",
    r"usr/lib/x86_64-linux-gnu/(libdevmapper-event|libdb-5|libperl).*",
    rf"usr/lib/{PYTHON}/(ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo|venv)/.*",
    rf"usr/lib/{PYTHON}/(EXTERNALLY-MANAGED|sitecustomize\.py|config-.*|lib-dynload/_test.*)",
    # The locked wheels bring these.
    r"usr/lib/python3/dist-packages/(cryptography|cffi|pycparser|bcrypt|_cffi_backend|ply).*",
    r".*/__pycache__/.*",
    r"packages\.txt",
)

_DEBUG_KEPT = re.compile(r"usr/sbin/dropbear|usr/share/terminfo(/.*)?|usr/lib/terminfo(/.*)?")
_DROP = re.compile("|".join(f"(?:{pattern})" for pattern in _DROPPED))


def stays(path: str, *, debug: bool) -> bool:
    """Tell whether a file of the packages, named without a leading slash, goes into the image."""
    if debug and _DEBUG_KEPT.fullmatch(path):
        return True
    return not _DROP.fullmatch(path)


def packages(*, debug: bool) -> tuple[str, ...]:
    """Return the packages of an image, by name."""
    return tuple(sorted((*PACKAGES, *(DEBUG_PACKAGES if debug else ()))))


def enabled(*, debug: bool) -> dict[str, tuple[str, ...]]:
    """Return target → units that it wants."""
    extra = DEBUG_ENABLED if debug else {}
    return {
        target: (*ENABLED.get(target, ()), *extra.get(target, ())) for target in {**ENABLED, **extra}
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
    ]
    return " ".join([*words, *(["cocos.debug"] if debug else ["systemd.show_status=no"])])
