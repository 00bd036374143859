# SPDX-License-Identifier: Apache-2.0
"""What a boot measures, recomputed step by step."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocos.errors import FormatError
from cocos.image import initrd, measure, predict
from cocos.wire.image_folder import FIRMWARE, UKI
from cocos.wire.pe import Image

Efi = Callable[..., bytes]
Firmware = Callable[..., bytes]
VERSIONS = {"ovmf-amdsev": "1", "ovmf-inteltdx": "2"}
LINE = b"roothash=1"


def replay(algorithm: str, *digests: bytes) -> str:
    value = bytes(hashlib.new(algorithm).digest_size)
    for digest in digests:
        value = hashlib.new(algorithm, value + digest).digest()
    return value.hex()


@pytest.fixture
def kernel(efi: Efi) -> bytes:
    return efi({".text": b"kernel"})


@pytest.fixture
def uki(efi: Efi, kernel: bytes) -> bytes:
    # The order is not that of the stub, and ".text" is not measured.
    sections = {".text": b"stub", ".initrd": b"rd", ".cmdline": LINE, ".osrel": b"ID=x\n"}
    return efi({**sections, ".linux": kernel})


def values(folder: Path, content: bytes, **how: Any) -> dict[str, Any]:
    (folder / UKI).write_bytes(content)
    return predict.reference_values(folder, **{"cpus": 2, "firmware": {}, **how})


def stub(algorithm: str, kernel: bytes) -> list[bytes]:
    """Digests of what systemd's stub measures, in its order."""
    contents = (b".linux\0", kernel, b".osrel\0", b"ID=x\n", b".cmdline\0", LINE)
    both = (*contents, b".initrd\0", b"rd")
    return [hashlib.new(algorithm, content).digest() for content in both]


def test_pcrs(tmp_path: Path, uki: bytes, kernel: bytes) -> None:
    found = values(tmp_path, uki)
    application, started = (Image.parse(each).authenticode() for each in (uki, kernel))
    call = hashlib.sha256(b"Calling EFI Application from Boot Option").digest()
    separator = hashlib.sha256(bytes(4)).digest()
    assert found["tpm_pcr04"] == [replay("sha256", application, call, separator, started)]
    assert found["tpm_pcr11"] == [replay("sha256", *stub("sha256", kernel))]
    options = LINE.decode().encode("utf-16-le") + b"\0\0"
    ramdisk = b"rd\0\0" + initrd.stub_archive("os-release", b"ID=x\n")
    kernels = (hashlib.sha256(content).digest() for content in (options, ramdisk))
    assert found["tpm_pcr09"] == [replay("sha256", *kernels)]
    assert found["tpm_pcr12"] == found["tpm_pcr13"] == ["00" * 32]
    for name in ("tpm_pcr04", "tpm_pcr09", "tpm_pcr11", "tpm_pcr12", "tpm_pcr13"):
        (events,) = found[f"{name}_events"]
        digests = (bytes.fromhex(event["digest"]) for event in events)
        assert found[name] == [replay("sha256", *digests)]


@pytest.fixture
def with_firmware(tmp_path: Path, firmware: Firmware) -> Path:
    for name in FIRMWARE.values():
        (tmp_path / name).write_bytes(firmware())
    return tmp_path


def test_rtmrs(with_firmware: Path, uki: bytes, kernel: bytes) -> None:
    found = values(with_firmware, uki, firmware=VERSIONS)

    def sha384(content: bytes) -> bytes:
        return hashlib.sha384(content).digest()

    application, started = (Image.parse(each).authenticode("sha384") for each in (uki, kernel))
    assert found["rtmr_1"] == [
        replay(
            "sha384",
            application,
            sha384(b"Calling EFI Application from Boot Option"),
            sha384(bytes(4)),
            started,
            sha384(b"Exit Boot Services Invocation"),
            sha384(b"Exit Boot Services Returned with Success"),
        )
    ]
    options = sha384(LINE.decode().encode("utf-16-le") + b"\0\0")
    ramdisk = sha384(b"rd\0\0" + initrd.stub_archive("os-release", b"ID=x\n"))
    assert found["rtmr_2"] == [replay("sha384", *stub("sha384", kernel), options, ramdisk)]
    assert found["tdvfkernel"] == [application.hex()]
    assert found["tdvfkernelparams"] == [options.hex()]


def test_every_value_says_what_it_was_computed_from(with_firmware: Path, uki: bytes) -> None:
    found = values(with_firmware, uki, firmware=VERSIONS)
    inputs = found.pop("inputs")
    named = {name for part in inputs.values() for name in part.get("values", ())}
    assert named == {name for name in found if not name.endswith("_events")}
    assert all(isinstance(accepted, list) for accepted in found.values())
    assert len(found["snp_launch_measurement"]) == inputs["snp"]["cpus"] == 2
    for memory, package in (("snp", "ovmf-amdsev 1"), ("tdx", "ovmf-inteltdx 2")):
        content = (with_firmware / inputs[memory]["firmware"]["file"]).read_bytes()
        assert inputs[memory]["firmware"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert inputs[memory]["firmware"]["package"] == package
        assert inputs[memory]["checked"].startswith("not on hardware")


def test_without_firmware_nothing_is_said_of_encrypted_memory(tmp_path: Path, uki: bytes) -> None:
    found = values(tmp_path, uki)
    assert not {name for name in found if name.startswith(("snp", "mr_", "rtmr", "tdvf"))}
    assert found["inputs"].keys() == {"uki", "tpm"}


def test_a_changed_command_line_changes_whatever_covers_it(
    with_firmware: Path, efi: Efi, kernel: bytes
) -> None:
    one, other = (
        values(with_firmware, efi({".linux": kernel, ".cmdline": line}), firmware=VERSIONS)
        for line in (b"roothash=1", b"roothash=2")
    )
    changed = {name for name in one if one[name] != other[name] and not name.endswith("_events")}
    covers = {
        "tpm_pcr04",
        "tpm_pcr09",
        "tpm_pcr11",
        "rtmr_1",
        "rtmr_2",
        "tdvfkernel",
        "tdvfkernelparams",
    }
    assert changed == {*covers, "snp_launch_measurement", "inputs"}


def test_a_program_without_kernel_is_refused(efi: Efi) -> None:
    with pytest.raises(FormatError, match="linux"):
        measure.boot(Image.parse(efi({".text": b"stub"})))


def test_the_stubs_archive_is_one(tmp_path: Path) -> None:
    content = initrd.stub_archive("os-release", b"ID=x\n")
    subprocess.run(
        ["busybox", "cpio", "-idm"], input=content, cwd=tmp_path, check=True, capture_output=True
    )
    assert (tmp_path / ".extra" / "os-release").read_bytes() == b"ID=x\n"
