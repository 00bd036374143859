# SPDX-License-Identifier: Apache-2.0
"""What of Debian's packages gets into the guest, and what its units may do."""

import configparser
import re
from pathlib import Path

import pytest

from cocos.image import spec
from cocos.image.rootfs import GUEST

UNITS = sorted(GUEST.glob("*/usr/lib/systemd/system/*.service"))


@pytest.mark.parametrize(
    "path",
    [
        "etc/containers/policy.json",
        "etc/ssl/openssl.cnf",
        "usr/bin/skopeo",
        "usr/bin/systemctl",
        "usr/lib/python3.13/json/__init__.py",
        "usr/lib/python3/dist-packages/tpm2_pytss/ESAPI.py",
        "usr/lib/systemd/system/basic.target",
        "usr/lib/systemd/systemd-journald",
        "usr/lib64/ld-linux-x86-64.so.2",
        "usr/share/ca-certificates/mozilla/x.crt",
    ],
)
def test_what_is_needed_stays(path: str) -> None:
    assert spec.stays(path, debug=False)


@pytest.mark.parametrize(
    "path",
    [
        "boot/vmlinuz-6",
        "etc/passwd",
        "etc/systemd/system/multi-user.target.wants/x.service",
        "usr/bin/gpg-agent",
        "usr/bin/su",
        "usr/bin/systemd-creds",
        "usr/lib/modules/6.12/kernel/fs/ext4.ko.xz",
        "usr/lib/python3.13/test/support/__init__.py",
        "usr/lib/python3.13/__pycache__/os.cpython-313.pyc",
        "usr/lib/python3/dist-packages/cryptography/__init__.py",
        "usr/lib/systemd/system-generators/systemd-ssh-generator",
        "usr/lib/systemd/system/debug-shell.service",
        "usr/lib/systemd/system/getty@.service",
        "usr/lib/systemd/system/sysinit.target.wants/systemd-udevd.service",
        "usr/lib/udev/rules.d/60.rules",
        "usr/sbin/agetty",
        "usr/sbin/dropbear",
        "var/lib/dpkg/status",
    ],
)
def test_the_rest_does_not(path: str) -> None:
    assert not spec.stays(path, debug=False)


def test_only_debug_images_can_be_entered() -> None:
    assert spec.stays("usr/sbin/dropbear", debug=True)
    for debug in (False, True):
        wanted = [unit for units in spec.enabled(debug=debug).values() for unit in units]
        assert any("debug" in unit for unit in wanted) == debug
        line = spec.command_line("00" * 32, 1, debug=debug).split()
        assert ("cocos.debug" in line) == debug
        assert "systemd.import_credentials=no" in line


def test_debug_packages_are_those_of_debug_images() -> None:
    assert "dropbear-bin" not in spec.packages(debug=False)
    assert set(spec.packages(debug=True)) - set(spec.packages(debug=False)) == {
        *spec.DEBUG_PACKAGES
    }


def settings(unit: Path) -> dict[str, list[str]]:
    """Read a unit's settings, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_well_formed_and_start_what_is_there(unit: Path) -> None:
    configparser.ConfigParser(strict=False, interpolation=None).read_string(unit.read_text("utf-8"))
    (command,) = settings(unit)["ExecStart"]
    program = command.split()[0]
    ours = {f"/usr/local/bin/{name}" for name in (*spec.PROGRAMS, "cocos-initdata")}
    scripts = {
        "/" + str(path.relative_to(GUEST / "root")) for path in GUEST.glob("root/usr/lib/cocos/*")
    }
    assert program in {*ours, *scripts, "/bin/bash", "/usr/sbin/dropbear"}


@pytest.mark.parametrize("name", ["attestation-agent", "coco-keyprovider", "cocos-initdata"])
def test_services_without_need_of_rights_have_none(name: str) -> None:
    found = settings(GUEST / "root/usr/lib/systemd/system" / f"{name}.service")
    assert re.fullmatch(r"|CAP_CHOWN", found["CapabilityBoundingSet"][0])
    for setting in ("NoNewPrivileges", "PrivateTmp", "RestrictNamespaces", "LockPersonality"):
        assert found[setting] == ["yes"], setting
    assert found["ProtectSystem"] == ["strict"]


def test_the_guests_wheels_are_the_versions_that_are_tested_here() -> None:
    def locked(path: Path) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==\S+", path.read_text("utf-8"), re.MULTILINE))

    ours = Path(__file__).parents[3] / "requirements" / "run.txt"
    assert locked(GUEST / "requirements.txt") <= locked(ours)


def test_the_scratch_disks_key_is_nowhere_but_in_the_kernel() -> None:
    script = (GUEST / "root/usr/lib/cocos/scratch").read_text().replace("\\\n", " ")
    (line,) = [line.split() for line in script.splitlines() if line.startswith("cryptsetup ")]
    assert line[1:4] == ["open", "--type", "plain"]
    assert line[line.index("--key-file") + 1] == "/dev/urandom"
